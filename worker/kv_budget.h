// How many KV blocks a rank takes: a pure function of the model, the flags and the memory there is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"

namespace baleen::worker {

struct KvDemand {
  std::size_t block_bytes = 0;         // at least 1
  std::uint32_t context_tokens = 0;    // of the model, at least 1
  std::uint32_t sequences_max = 0;     // at least 1
  std::uint32_t blocks_requested = 0;  // --kv-blocks; 0 = choose
  std::uint64_t memory_available_bytes = 0;
};

// By choice: what `sequences_max` sequences of full context need, but at most a quarter of the
// available memory, since the weights and other workers of the machine want theirs.
// RESOURCE_EXHAUSTED says how much was asked for and how much there is.
absl::StatusOr<std::uint32_t> KvBlocksFor(const KvDemand& demand);

}  // namespace baleen::worker
