// Which requests a rank refuses at the door: a pure function of the request and the rank's limits.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/engine/messages.h"
#include "worker/engine/rules/role.h"

namespace baleen::worker {

struct StartLimits {
  Role role = Role::kMixed;
  bool has_data_plane = false;
  bool has_grammars = false;
  std::uint32_t context_tokens = 0;
  std::uint32_t vocabulary_size = 0;
  std::uint32_t blocks_total = 0;
};

// OK, or a status with a contract::Reason that names the field and the limit; never prompt text.
absl::Status CheckStart(const StartCommand& start, const StartLimits& limits);

// Blocks that the request can ever need on this rank. The reply's last token is never fed back, so
// its KV is never made. Precondition: the prompt is not empty and tokens_max is at least 1.
std::uint64_t BlocksNeeded(const StartCommand& start);

// Blocks that hold the prompt.
std::uint32_t PromptBlocks(const StartCommand& start);

}  // namespace baleen::worker
