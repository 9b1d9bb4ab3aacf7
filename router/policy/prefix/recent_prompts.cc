#include "router/policy/prefix/recent_prompts.h"

#include <algorithm>
#include <utility>

namespace baleen::router {
namespace {

// Blocks that two chains have in common. Equal hashes have equal ones before them, so it is found
// by halving.
std::size_t CommonBlocks(std::span<const contract::BlockHash> a,
                         std::span<const contract::BlockHash> b) {
  std::size_t equal = 0;
  std::size_t different = std::min(a.size(), b.size()) + 1;
  while (different - equal > 1) {
    const std::size_t middle = equal + (different - equal) / 2;
    (a[middle - 1] == b[middle - 1] ? equal : different) = middle;
  }
  return equal;
}

}  // namespace

void RecentPrompts::Add(std::uint32_t slot, Hashes hashes, absl::Duration now) {
  prompts_[next_] = {.slot = slot, .hashes = std::move(hashes), .until = now + kRecent};
  next_ = (next_ + 1) % kPromptsMax;
}

void RecentPrompts::Raise(std::span<const contract::BlockHash> hashes, absl::Duration now,
                          std::span<std::uint16_t> depths) const {
  for (const Prompt& prompt : prompts_) {
    if (prompt.hashes == nullptr || prompt.until <= now || prompt.slot >= depths.size()) continue;
    const auto common = static_cast<std::uint16_t>(CommonBlocks(hashes, *prompt.hashes));
    depths[prompt.slot] = std::max(depths[prompt.slot], common);
  }
}

}  // namespace baleen::router
