#include "worker/kv_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "observability/base/check.h"
#include "proto/contract/limits.h"

namespace baleen::worker {
namespace {

constexpr std::uint64_t kMemoryShare = 4;  // a quarter
constexpr std::uint64_t kMebibyte = 1u << 20;

}  // namespace

absl::StatusOr<std::uint32_t> KvBlocksFor(const KvDemand& demand) {
  BALEEN_CHECK(demand.block_bytes > 0 && demand.context_tokens > 0 && demand.sequences_max > 0,
               "a model has blocks and a context");
  const std::uint64_t available = demand.memory_available_bytes;
  if (demand.blocks_requested > 0) {
    if (demand.blocks_requested > available / demand.block_bytes) {
      return absl::ResourceExhaustedError(fmt::format(
          "--kv-blocks {} of {} bytes each are {} MiB; {} MiB of memory are available",
          demand.blocks_requested, demand.block_bytes,
          demand.blocks_requested * (demand.block_bytes / 1024) / 1024, available / kMebibyte));
    }
    return demand.blocks_requested;
  }
  const std::uint64_t context_blocks =
      (demand.context_tokens + contract::kBlockTokens - 1) / contract::kBlockTokens;
  const std::uint64_t wanted = context_blocks * demand.sequences_max;
  const std::uint64_t affordable = available / kMemoryShare / demand.block_bytes;
  const std::uint64_t blocks = std::min(wanted, affordable);
  if (blocks == 0) {
    return absl::ResourceExhaustedError(fmt::format(
        "one KV block takes {} bytes, more than a quarter of the {} MiB of memory available; "
        "--kv-blocks overrides the share",
        demand.block_bytes, available / kMebibyte));
  }
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(blocks, std::numeric_limits<std::uint32_t>::max()));
}

}  // namespace baleen::worker
