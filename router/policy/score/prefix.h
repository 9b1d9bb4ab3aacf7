// How much of a prompt a rank need not compute. Reads: the blocks that the rank has reported.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "proto/contract/limits.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

// Prompt tokens whose KV the rank has. `cached_blocks`: blocks from the prompt's beginning, by
// slot. The last token is computed always: its logits are what the reply begins with.
inline std::uint32_t CachedTokens(const WorkerView& worker,
                                  std::span<const std::uint16_t> cached_blocks,
                                  std::uint32_t prompt_tokens) {
  if (worker.slot >= cached_blocks.size()) return 0;
  const std::uint32_t blocks_most = (prompt_tokens - 1) / contract::kBlockTokens;
  return std::min<std::uint32_t>(cached_blocks[worker.slot], blocks_most) * contract::kBlockTokens;
}

}  // namespace baleen::router
