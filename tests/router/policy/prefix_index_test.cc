// The index of cached blocks: what it says of prompts, by hand and against a plain model of itself.
#include "router/policy/prefix/prefix_index.h"
#include "router/policy/prefix/recent_prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace baleen::router {
namespace {

using contract::BlockHash;
using ::testing::Each;
using ::testing::ElementsAre;

BlockHash Hash(std::uint64_t number) {
  // Spread as real ones are.
  std::uint64_t x = (number + 1) * 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  BlockHash hash;
  std::memcpy(hash.bytes.data(), &x, sizeof(x));
  return hash;
}

std::vector<BlockHash> Hashes(const std::vector<std::uint64_t>& numbers) {
  std::vector<BlockHash> hashes;
  for (const std::uint64_t number : numbers) hashes.push_back(Hash(number));
  return hashes;
}

std::vector<std::uint16_t> Match(PrefixIndex& index, const std::vector<std::uint64_t>& numbers) {
  const auto depths = index.Match(Hashes(numbers));
  return {depths.begin(), depths.end()};
}

TEST(PrefixIndex, CountsBlocksFromTheBeginningWithoutAGap) {
  PrefixIndex index;
  for (PrefixIndex::Slot slot = 0; slot < 4; ++slot) ASSERT_EQ(index.AddRank(100), slot);
  index.Store(0, Hashes({1, 2, 3}));
  index.Store(1, Hashes({1, 3}));
  index.Store(2, Hashes({2, 3}));
  EXPECT_THAT(Match(index, {1, 2, 3, 4}), ElementsAre(3, 1, 0, 0));
  EXPECT_THAT(Match(index, {1, 4, 2}), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(Match(index, {9}), Each(0));
  EXPECT_THAT(Match(index, {}), Each(0));
  index.Evict(0, Hashes({2, 9}));
  index.Evict(1, Hashes({1}));
  EXPECT_THAT(Match(index, {1, 2, 3}), ElementsAre(1, 0, 0, 0));
  EXPECT_EQ(index.blocks(), 3u);
}

TEST(PrefixIndex, ALostRankHoldsNothingAtOnceAndItsSlotComesBackSwept) {
  PrefixIndex index;
  for (PrefixIndex::Slot slot = 0; slot < 8; ++slot) ASSERT_EQ(index.AddRank(100), slot);
  for (PrefixIndex::Slot slot = 0; slot < 8; ++slot) index.Store(slot, Hashes({1, 2}));
  index.Store(3, Hashes({5}));
  index.RemoveRank(3);
  EXPECT_THAT(Match(index, {1, 2}), ElementsAre(2, 2, 2, 0, 2, 2, 2, 2));
  EXPECT_THAT(Match(index, {5}), Each(0));
  EXPECT_EQ(index.AddRank(100), 8u) << "its entries are still there";
  EXPECT_THAT(Match(index, {1, 2}), ElementsAre(2, 2, 2, 0, 2, 2, 2, 2, 0));
  for (int i = 0; i < 64; ++i) index.Sweep();
  EXPECT_EQ(index.blocks(), 2u);
  EXPECT_EQ(index.AddRank(100), 3u);
  EXPECT_THAT(Match(index, {1, 2}), ElementsAre(2, 2, 2, 0, 2, 2, 2, 2, 0));
}

TEST(PrefixIndex, ARankThatComesAndGoesWithoutEndNeverRunsOutOfSlots) {
  PrefixIndex index;
  for (std::uint64_t i = 0; i < 3 * kPrefixSlotsMax; ++i) {
    const auto slot = index.AddRank(10);
    ASSERT_TRUE(slot.has_value()) << i;
    index.Store(*slot, Hashes({i, i + 1}));
    index.RemoveRank(*slot);
  }
  EXPECT_LE(index.blocks(), 2 * kPrefixSlotsMax);
}

TEST(PrefixIndex, AllSlotsTakenIsSaid) {
  PrefixIndex index;
  for (std::uint32_t i = 0; i < kPrefixSlotsMax; ++i) ASSERT_TRUE(index.AddRank(1).has_value());
  EXPECT_EQ(index.AddRank(1), std::nullopt);
}

TEST(PrefixIndex, IsBounded) {
  PrefixIndex index({.blocks_max = 5, .shared_blocks_max = 1});
  ASSERT_EQ(index.AddRank(3), 0u);
  index.Store(0, Hashes({1, 2, 3, 4}));
  EXPECT_EQ(index.blocks(), 3u) << "no rank has more blocks than it said";
  EXPECT_EQ(index.dropped_total(), 1u);
  ASSERT_EQ(index.AddRank(100), 1u);
  index.Store(1, Hashes({4, 5, 6}));
  EXPECT_EQ(index.blocks(), 5u);
  EXPECT_EQ(index.dropped_total(), 2u);
  // Of the second block that more than five hold, only five are known.
  for (PrefixIndex::Slot slot = 2; slot < 10; ++slot) {
    ASSERT_EQ(index.AddRank(100), slot);
    index.Store(slot, Hashes({4, 5}));
  }
  EXPECT_THAT(Match(index, {4}), ElementsAre(0, 1, 1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_THAT(Match(index, {5}), ElementsAre(0, 1, 1, 1, 1, 1, 0, 0, 0, 0));
}

TEST(RecentPrompts, RaisesWhatTheRankWillHaveForAWhile) {
  RecentPrompts recent;
  const auto hashes = [](const std::vector<std::uint64_t>& numbers) {
    return std::make_shared<const std::vector<BlockHash>>(Hashes(numbers));
  };
  recent.Add(1, hashes({1, 2, 3}), absl::Seconds(10));
  recent.Add(2, hashes({1, 9}), absl::Seconds(12));
  recent.Add(7, hashes({1, 2, 3, 4}), absl::Seconds(12));  // a slot that is gone
  const auto raised = [&](const std::vector<std::uint64_t>& numbers, absl::Duration now) {
    std::vector<std::uint16_t> depths = {0, 1, 4};
    recent.Raise(Hashes(numbers), now, depths);
    return depths;
  };
  EXPECT_THAT(raised({1, 2, 3, 4}, absl::Seconds(12)), ElementsAre(0, 3, 4)) << "never lowered";
  EXPECT_THAT(raised({1, 2, 7}, absl::Seconds(12)), ElementsAre(0, 2, 4));
  EXPECT_THAT(raised({5}, absl::Seconds(12)), ElementsAre(0, 1, 4));
  EXPECT_THAT(raised({}, absl::Seconds(12)), ElementsAre(0, 1, 4));
  EXPECT_THAT(raised({1, 2, 3}, absl::Seconds(15)), ElementsAre(0, 1, 4)) << "too long ago";
  for (int i = 0; i < 1000; ++i) recent.Add(0, hashes({8}), absl::Seconds(16));
  EXPECT_THAT(raised({8}, absl::Seconds(16)), ElementsAre(1, 1, 4));
}

// Few blocks and many ranks, so that entries grow into sets and shrink again.
TEST(PrefixIndex, AgreesWithAPlainModelWhateverHappens) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    PrefixIndex index;
    std::map<PrefixIndex::Slot, std::set<std::uint64_t>> held;
    for (int step = 0; step < 2000; ++step) {
      const std::uint64_t number = random() % 24;
      const int dice = static_cast<int>(random() % 100);
      if (held.size() < 4 || (dice < 3 && held.size() < 100)) {
        const auto slot = index.AddRank(1000);
        ASSERT_TRUE(slot && !held.contains(*slot));
        held[*slot];
        continue;
      }
      auto it = std::next(held.begin(), static_cast<std::ptrdiff_t>(random() % held.size()));
      if (dice < 5) {
        index.RemoveRank(it->first);
        held.erase(it);
      } else if (dice < 60) {
        index.Store(it->first, Hashes({number}));
        it->second.insert(number);
      } else if (dice < 80) {
        index.Evict(it->first, Hashes({number}));
        it->second.erase(number);
      } else if (dice < 85) {
        index.Sweep();
      } else {
        std::vector<std::uint64_t> prompt;
        for (std::uint64_t i = 0; i < 1 + random() % 6; ++i) prompt.push_back(random() % 24);
        const auto depths = Match(index, prompt);
        for (const auto& [slot, numbers] : held) {
          std::uint16_t expected = 0;
          while (expected < prompt.size() && numbers.contains(prompt[expected])) ++expected;
          ASSERT_EQ(depths[slot], expected) << "slot " << slot;
        }
      }
    }
    std::set<std::uint64_t> all;
    for (const auto& [slot, numbers] : held) all.insert(numbers.begin(), numbers.end());
    for (int i = 0; i < 128; ++i) index.Sweep();
    EXPECT_EQ(index.blocks(), all.size());
  }
}

}  // namespace
}  // namespace baleen::router
