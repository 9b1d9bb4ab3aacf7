// Cached blocks are found, shared, kept after their holders, evicted from their ends, and never
// hold anything but what their names say.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "proto/contract/limits.h"
#include "worker/cache/block_pool.h"
#include "worker/cache/cache_feed.h"

namespace baleen::worker {
namespace {

using contract::BlockHash;
using Chain = std::vector<BlockHash>;

// The names of the prompt whose blocks are `pieces`.
Chain ChainOf(std::initializer_list<std::int32_t> pieces) {
  std::vector<std::int32_t> tokens;
  for (const std::int32_t piece : pieces) {
    tokens.insert(tokens.end(), contract::kBlockTokens, piece);
  }
  return contract::HashBlocks({.tenant_salt = "salt", .model_digest = "model"}, tokens);
}

std::unique_ptr<BlockPool> MakePool(std::uint32_t blocks, CacheFeed* feed = nullptr) {
  return *BlockPool::Create({.blocks = blocks, .block_bytes = sizeof(BlockHash), .feed = feed});
}

// A list of as many blocks as `chain`, computed and cached.
BlockList Cache(BlockPool& pool, const Chain& chain) {
  BlockList list = *pool.Reserve(static_cast<std::uint32_t>(chain.size()), chain);
  pool.Keep(list, chain);
  return list;
}

TEST(PrefixCache, BlocksOutliveTheirHoldersAndCountAsFree) {
  const auto pool = MakePool(4);
  const Chain chain = ChainOf({1, 2, 3});
  {
    const BlockList list = Cache(*pool, chain);
    EXPECT_EQ(list.cached(), 3u);
    EXPECT_EQ(pool->used(), 3u);
    EXPECT_EQ(pool->cached_count(), 0u);
    EXPECT_EQ(pool->Find(chain).held, 3u);
  }
  EXPECT_EQ(pool->used(), 0u);
  EXPECT_EQ(pool->free_count(), 4u);
  EXPECT_EQ(pool->cached_count(), 3u);
  EXPECT_EQ(pool->Find(chain).cached, 3u);
  EXPECT_EQ(pool->Find(chain).held, 0u);
}

TEST(PrefixCache, PromptsThatBeginAlikeShareTheirBeginning) {
  const auto pool = MakePool(5);
  const Chain chain = ChainOf({1, 2, 3});
  const BlockList first = Cache(*pool, chain);
  const Chain other = ChainOf({1, 2, 4});
  EXPECT_EQ(pool->Find(other).cached, 2u);
  // Three more would not fit: two are shared.
  const std::optional<BlockList> second = pool->Reserve(4, other);
  ASSERT_TRUE(second.has_value());
  EXPECT_EQ(second->cached(), 2u);
  EXPECT_EQ(second->ids()[0], first.ids()[0]);
  EXPECT_EQ(second->ids()[1], first.ids()[1]);
  EXPECT_NE(second->ids()[2], first.ids()[2]);
  EXPECT_EQ(pool->used(), 5u);
  EXPECT_EQ(pool->references(), 7u);
  EXPECT_FALSE(pool->Reserve(1).has_value());
}

TEST(PrefixCache, IdleBlocksOfTheChainAreNotRoomForItsRest) {
  const auto pool = MakePool(4);
  const Chain chain = ChainOf({1, 2, 3});
  Cache(*pool, chain);
  const BlockList other = *pool->Reserve(1);
  // Three are free, and all three are the prompt's own beginning.
  EXPECT_FALSE(pool->Reserve(4, chain).has_value());
  EXPECT_TRUE(pool->Reserve(3, chain).has_value());
}

TEST(PrefixCache, MakesRoomFromTheEndOfWhatWasUsedLeastRecently) {
  const auto pool = MakePool(6);
  const Chain old = ChainOf({1, 2, 3});
  const Chain young = ChainOf({4, 5, 6});
  Cache(*pool, old);
  Cache(*pool, young);
  {
    const BlockList taken = *pool->Reserve(1);
    EXPECT_EQ(pool->Find(old).cached, 2u);
    EXPECT_EQ(pool->Find(young).cached, 3u);
  }
  // Used again, the old one is the younger one; the free block is taken first.
  pool->Reserve(2, BlockChain(old).first(2)).reset();
  const BlockList taken = *pool->Reserve(3);
  EXPECT_EQ(pool->Find(old).cached, 2u);
  EXPECT_EQ(pool->Find(young).cached, 1u);
  EXPECT_EQ(pool->evicted_total(), 3u);
}

TEST(PrefixCache, HeldBlocksAreNeverEvicted) {
  const auto pool = MakePool(3);
  const Chain chain = ChainOf({1, 2});
  const BlockList list = Cache(*pool, chain);
  EXPECT_FALSE(pool->Reserve(2).has_value());
  const BlockList rest = *pool->Reserve(1);
  EXPECT_EQ(pool->Find(chain).cached, 2u);
}

TEST(PrefixCache, TheSameBlockComputedTwiceIsKeptOnce) {
  const auto pool = MakePool(6);
  const Chain chain = ChainOf({1, 2, 3});
  BlockList first = *pool->Reserve(3, chain);
  BlockList second = *pool->Reserve(3, chain);
  EXPECT_EQ(second.cached(), 0u);
  pool->Keep(first, BlockChain(chain).first(2));
  pool->Keep(second, BlockChain(chain).first(1));
  EXPECT_EQ(second.ids()[0], first.ids()[0]);
  EXPECT_EQ(pool->used(), 5u);
  // The one that lags behind computes the third block first.
  EXPECT_EQ(pool->Extend(second, chain), 2u);
  pool->Keep(second, chain);
  EXPECT_EQ(pool->Extend(first, chain), 3u);
  EXPECT_EQ(pool->used(), 3u);
  first.Release();
  EXPECT_EQ(pool->used(), 3u);
  second.Release();
  EXPECT_EQ(pool->cached_count(), 3u);
}

TEST(PrefixCache, WhatIsInDoubtLeavesWithAllThatBeganWithIt) {
  const auto pool = MakePool(9);
  const Chain chain = ChainOf({1, 2, 3});
  const Chain branch = ChainOf({1, 4});
  const Chain other = ChainOf({2});
  BlockList list = Cache(*pool, chain);
  Cache(*pool, branch);
  Cache(*pool, other);
  pool->Forget(list);
  EXPECT_EQ(pool->Find(chain).cached, 0u);
  EXPECT_EQ(pool->Find(branch).cached, 0u);
  EXPECT_EQ(pool->Find(other).cached, 1u);
  EXPECT_EQ(pool->used(), 3u);
  // Its holder goes on with it, and caches nothing that follows.
  const Chain longer = ChainOf({1, 2, 3, 5});
  const BlockList fresh = Cache(*pool, ChainOf({1, 2}));
  EXPECT_NE(fresh.ids()[0], list.ids()[0]);
  EXPECT_EQ(pool->Extend(list, longer), 3u);
  pool->Keep(list, ChainOf({1, 2, 3}));
  list.Release();
  EXPECT_EQ(pool->used(), 2u);
  EXPECT_EQ(pool->Find(chain).cached, 2u);
}

// The router is trusted to name blocks rightly; when it does not, prompts may find nothing, and the
// accounts stay right.
TEST(PrefixCache, NamesThatContradictThemselvesKeepNothing) {
  const auto pool = MakePool(10);
  const Chain a = ChainOf({1, 2, 3});
  const Chain b = ChainOf({4, 5, 6});
  {
    const BlockList first = Cache(*pool, a);
    BlockList second = Cache(*pool, b);
    second.Release();
    const Chain mixed = {a[0], a[1], b[2]};
    const std::optional<BlockList> list = pool->Reserve(3, mixed);
    ASSERT_TRUE(list.has_value());  // as b, of which the last name is
    EXPECT_EQ(pool->references(), 6u);
    EXPECT_EQ(pool->Find(Chain{b[1], a[0]}).cached, 0u);
    BlockList same = *pool->Reserve(2, Chain{a[1], a[0]});
    pool->Keep(same, Chain{a[1], a[0]});
    EXPECT_EQ(same.cached(), 0u);
    BlockList twice = *pool->Reserve(2);
    pool->Keep(twice, Chain(2, ChainOf({9})[0]));
    EXPECT_EQ(twice.cached(), 1u);
  }
  EXPECT_EQ(pool->used(), 0u);
  EXPECT_TRUE(pool->Reserve(10).has_value());
}

// What a router knows from the changes.
struct Replica {
  CacheFeed::Place place;
  std::set<BlockHash> hashes;

  bool ReadOnce(const CacheFeed& feed) {
    const std::optional<CacheChanges> changes = feed.Read(place);
    if (!changes.has_value()) return false;
    if (changes->cleared) hashes.clear();
    hashes.insert(changes->stored.begin(), changes->stored.end());
    for (const BlockHash& hash : changes->evicted) hashes.erase(hash);
    return true;
  }
  void CatchUp(const CacheFeed& feed) {
    while (ReadOnce(feed)) {
    }
  }
};

// Sequences of a small family of prompts, so that they meet often. The memory of a block holds its
// name once it is computed, and zeros before.
class World {
 public:
  explicit World(std::uint32_t seed) : random_(seed) {
    const std::uint32_t blocks = 4 + Pick(40);
    feed_ = std::make_unique<CacheFeed>(
        CacheFeed::Options{.blocks = blocks, .changes_max = 1 + Pick(30), .read_max = 1 + Pick(9)});
    pool_ = MakePool(blocks, feed_.get());
  }

  void Run(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      Act();
      if (Chance(60)) feed_->Publish();
      if (Chance(20)) router_.ReadOnce(*feed_);
      Check();
      if (testing::Test::HasFailure()) return;
    }
    sequences_.clear();
    EXPECT_EQ(pool_->used(), 0u);
    EXPECT_TRUE(pool_->Reserve(pool_->total()).has_value());
  }

  int found() const { return found_; }
  int extended() const { return extended_; }

 private:
  struct Sequence {
    Chain chain;
    BlockList blocks;
    std::uint32_t computed = 0;
    bool forgotten = false;
  };

  std::uint32_t Pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }
  bool Chance(std::uint32_t percent) { return Pick(100) < percent; }

  void Act() {
    const std::uint32_t what = Pick(100);
    if (what < 30) {
      Start();
    } else if (sequences_.empty()) {
      return;
    } else if (what < 70) {
      Compute(Any());
    } else if (what < 80) {
      Extend(Any());
    } else if (what < 99) {
      std::swap(Any(), sequences_.back());
      sequences_.pop_back();
    } else {
      Forget(Any());
    }
  }

  Sequence& Any() {
    return *std::next(sequences_.begin(), Pick(static_cast<std::uint32_t>(sequences_.size())));
  }

  void Start() {
    std::vector<std::int32_t> tokens;
    const std::uint32_t pieces = 1 + Pick(8);
    for (std::uint32_t i = 0; i < pieces; ++i) {
      tokens.insert(tokens.end(), contract::kBlockTokens, Chance(75) ? 1 : 2);
    }
    Sequence sequence{.chain = contract::HashBlocks({.tenant_salt = "s"}, tokens)};
    const std::uint32_t count = pieces + Pick(3);
    const PrefixIndex::Match match = pool_->Find(sequence.chain);
    const std::uint32_t free = pool_->free_count();
    std::optional<BlockList> blocks = pool_->Reserve(count, sequence.chain);
    ASSERT_EQ(blocks.has_value(), count - match.held <= free);
    if (!blocks.has_value()) return;
    sequence.blocks = *std::move(blocks);
    ASSERT_EQ(sequence.blocks.cached(), match.cached);
    ASSERT_EQ(free - pool_->free_count(), count - match.held);
    found_ += match.cached > 0 ? 1 : 0;
    sequence.computed = match.cached;
    for (std::uint32_t i = match.cached; i < count; ++i) {
      std::memset(sequence.blocks.bytes(i).data(), 0, sizeof(BlockHash));
    }
    sequences_.push_back(std::move(sequence));
  }

  void Compute(Sequence& sequence) {
    const auto blocks = static_cast<std::uint32_t>(sequence.chain.size());
    const std::uint32_t end = sequence.computed + Pick(blocks - sequence.computed + 1);
    for (std::uint32_t i = sequence.computed; i < end; ++i) {
      std::memcpy(sequence.blocks.bytes(i).data(), &sequence.chain[i], sizeof(BlockHash));
    }
    sequence.computed = end;
    pool_->Keep(sequence.blocks, BlockChain(sequence.chain).first(end));
    if (!sequence.forgotten) {
      ASSERT_EQ(sequence.blocks.cached(), end);
    }
  }

  void Extend(Sequence& sequence) {
    const std::uint32_t cached = pool_->Extend(sequence.blocks, sequence.chain);
    extended_ += cached > sequence.computed ? 1 : 0;
    sequence.computed = std::max(sequence.computed, cached);
  }

  void Forget(Sequence& sequence) {
    pool_->Forget(sequence.blocks);
    for (Sequence& other : sequences_) {
      other.forgotten = other.forgotten || pool_->Find(other.chain).cached < other.blocks.cached();
    }
  }

  void Check() {
    std::set<std::uint32_t> held;
    std::size_t references = 0;
    for (Sequence& sequence : sequences_) {
      held.insert(sequence.blocks.ids().begin(), sequence.blocks.ids().end());
      references += sequence.blocks.size();
      ASSERT_GE(sequence.computed, sequence.blocks.cached());
      for (std::uint32_t i = 0; i < sequence.blocks.size(); ++i) {
        const BlockHash expected = i < sequence.computed ? sequence.chain[i] : BlockHash{};
        ASSERT_EQ(std::memcmp(sequence.blocks.bytes(i).data(), &expected, sizeof(expected)), 0);
      }
    }
    ASSERT_EQ(pool_->used(), held.size());
    ASSERT_EQ(pool_->references(), references);
    ASSERT_LE(pool_->cached_count(), pool_->free_count());
    CheckReplica();
  }

  // A reader that comes now sees exactly what can be found; so does one that has read in bits, once
  // it has caught up.
  void CheckReplica() {
    if (!Chance(10)) return;
    feed_->Publish();
    Replica fresh;
    fresh.CatchUp(*feed_);
    for (const Sequence& sequence : sequences_) {
      const std::uint32_t cached = pool_->Find(sequence.chain).cached;
      for (std::uint32_t i = 0; i < sequence.chain.size(); ++i) {
        ASSERT_EQ(fresh.hashes.contains(sequence.chain[i]), i < cached) << "a chain has a gap";
      }
    }
    router_.CatchUp(*feed_);
    ASSERT_EQ(router_.hashes, fresh.hashes);
  }

  std::mt19937 random_;
  std::unique_ptr<CacheFeed> feed_;
  std::unique_ptr<BlockPool> pool_;
  std::vector<Sequence> sequences_;
  Replica router_;
  int found_ = 0;
  int extended_ = 0;
};

TEST(PrefixCacheRandom, NoBlockHoldsAnythingButWhatItsNameSays) {
  const std::uint32_t base = std::random_device{}();
  int found = 0;
  int extended = 0;
  for (std::uint32_t seed = base; seed < base + 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed);
    world.Run(400);
    if (testing::Test::HasFailure()) return;
    found += world.found();
    extended += world.extended();
  }
  EXPECT_GT(found, 1000);
  EXPECT_GT(extended, 100);
}

}  // namespace
}  // namespace baleen::worker
