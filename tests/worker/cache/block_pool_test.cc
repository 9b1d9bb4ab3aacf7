// Blocks come back, are never held twice, and are all there.
#include "worker/cache/block_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace baleen::worker {
namespace {

std::unique_ptr<BlockPool> MakePool(std::uint32_t blocks, std::size_t block_bytes = 128) {
  auto pool = BlockPool::Create({.blocks = blocks, .block_bytes = block_bytes});
  EXPECT_TRUE(pool.ok()) << pool.status();
  return *std::move(pool);
}

TEST(BlockPool, GivesAllOrNothing) {
  const auto pool = MakePool(4);
  std::optional<BlockList> three = pool->Reserve(3);
  ASSERT_TRUE(three.has_value());
  EXPECT_FALSE(pool->Reserve(2).has_value());
  EXPECT_EQ(pool->used(), 3u);
  EXPECT_TRUE(pool->Reserve(1).has_value());  // and comes back at once
  three.reset();
  EXPECT_EQ(pool->free_count(), 4u);
  EXPECT_EQ(pool->Reserve(4)->size(), 4u);
}

TEST(BlockPool, MovesHandTheBlocksOn) {
  const auto pool = MakePool(4);
  BlockList a = *pool->Reserve(2);
  BlockList b = std::move(a);
  EXPECT_EQ(a.size(), 0u);  // NOLINT: moved-from is empty by contract
  EXPECT_EQ(b.size(), 2u);
  EXPECT_EQ(pool->used(), 2u);
  b = *pool->Reserve(1);  // the old two come back
  EXPECT_EQ(pool->used(), 1u);
  b.Release();
  b.Release();
  EXPECT_EQ(pool->used(), 0u);
}

TEST(BlockPool, MemoryIsAlignedAndDisjoint) {
  const auto pool = MakePool(3, 192);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool->base()) % 64, 0u);
  BlockList all = *pool->Reserve(3);
  for (std::size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(all.bytes(i).size(), 192u);
    EXPECT_EQ(all.bytes(i).data(), pool->base() + all.ids()[i] * 192);
    std::memset(all.bytes(i).data(), static_cast<int>(i + 1), 192);
  }
  for (std::size_t i = 0; i < 3; ++i) {
    for (const std::byte byte : all.bytes(i)) ASSERT_EQ(byte, static_cast<std::byte>(i + 1));
  }
}

TEST(BlockPool, RefusesImpossibleSizes) {
  EXPECT_EQ(BlockPool::Create({.blocks = 0, .block_bytes = 64}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlockPool::Create({.blocks = 1, .block_bytes = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(BlockPool::Create({.blocks = std::numeric_limits<std::uint32_t>::max(),
                               .block_bytes = std::numeric_limits<std::size_t>::max() / 2})
                .status()
                .code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(BlockPool, RandomUseNeverSharesABlock) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const auto pool = MakePool(50);
  std::vector<BlockList> lists;
  for (int round = 0; round < 2000; ++round) {
    if (!lists.empty() && random() % 2 == 0) {
      std::swap(lists[random() % lists.size()], lists.back());
      lists.pop_back();
    } else if (auto list = pool->Reserve(random() % 9); list.has_value()) {
      lists.push_back(*std::move(list));
    }
    std::set<std::uint32_t> held;
    std::size_t count = 0;
    for (const BlockList& list : lists) {
      held.insert(list.ids().begin(), list.ids().end());
      count += list.size();
    }
    ASSERT_EQ(held.size(), count);
    ASSERT_EQ(pool->used(), count);
  }
}

TEST(BlockPoolDeathTest, APoolOutlivesItsBlocks) {
  auto pool = MakePool(1);
  const BlockList list = *pool->Reserve(1);
  EXPECT_DEATH(pool.reset(), "every block is returned");
}

}  // namespace
}  // namespace baleen::worker
