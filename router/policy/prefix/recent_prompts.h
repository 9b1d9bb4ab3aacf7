// Prompts that were sent to ranks a moment ago. A rank reports blocks once they are computed; until
// then this is how several choices of one request, or several requests with one long beginning,
// find the rank that computes it already: of prompts that come together a rank computes one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "proto/contract/block_hash.h"

namespace baleen::router {

// One thread.
class RecentPrompts {
 public:
  using Hashes = std::shared_ptr<const std::vector<contract::BlockHash>>;

  // `slot` as in PrefixIndex.
  void Add(std::uint32_t slot, Hashes hashes, absl::Duration now);

  // Raises the depths of PrefixIndex::Match to what these prompts will have left on their ranks.
  void Raise(std::span<const contract::BlockHash> hashes, absl::Duration now,
             std::span<std::uint16_t> depths) const;

 private:
  static constexpr std::size_t kPromptsMax = 64;
  // Afterwards the rank has said what it has, or will not compute it.
  static constexpr absl::Duration kRecent = absl::Seconds(5);

  struct Prompt {
    std::uint32_t slot = 0;
    Hashes hashes;
    absl::Duration until;
  };
  std::array<Prompt, kPromptsMax> prompts_;
  std::size_t next_ = 0;
};

}  // namespace baleen::router
