// Each reader of the feed ends up with what is there, however late it comes and however slow it is.
#include "worker/cache/cache_feed.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

namespace baleen::worker {
namespace {

using contract::BlockHash;

BlockHash HashOf(std::uint8_t value) { return {.bytes = {value}}; }

TEST(CacheFeed, BeginsWithEverythingThenTellsChanges) {
  CacheFeed feed({.blocks = 4});
  feed.Stored(0, HashOf(1));
  feed.Stored(1, HashOf(2));
  feed.Publish();
  CacheFeed::Place place;
  std::optional<CacheChanges> changes = feed.Read(place);
  ASSERT_TRUE(changes.has_value());
  EXPECT_TRUE(changes->cleared);
  EXPECT_EQ(changes->stored, (std::vector{HashOf(1), HashOf(2)}));
  EXPECT_FALSE(feed.Read(place).has_value());

  feed.Evicted(0, HashOf(1));
  feed.Stored(0, HashOf(3));
  EXPECT_FALSE(feed.Read(place).has_value()) << "not published yet";
  feed.Publish();
  changes = feed.Read(place);
  ASSERT_TRUE(changes.has_value());
  EXPECT_FALSE(changes->cleared);
  EXPECT_EQ(changes->stored, std::vector{HashOf(3)});
  EXPECT_EQ(changes->evicted, std::vector{HashOf(1)});
}

TEST(CacheFeed, AnEmptyCacheIsSaidToo) {
  const CacheFeed feed({.blocks = 4});
  CacheFeed::Place place;
  const std::optional<CacheChanges> changes = feed.Read(place);
  ASSERT_TRUE(changes.has_value());
  EXPECT_TRUE(changes->cleared);
  EXPECT_TRUE(changes->stored.empty());
  EXPECT_FALSE(feed.Read(place).has_value());
}

TEST(CacheFeed, WhatCameAndWentIsNotWorthAWord) {
  CacheFeed feed({.blocks = 4});
  feed.Stored(0, HashOf(1));
  feed.Publish();
  CacheFeed::Place place;
  (void)feed.Read(place);
  feed.Stored(1, HashOf(2));
  feed.Evicted(1, HashOf(2));
  feed.Evicted(0, HashOf(1));
  feed.Stored(2, HashOf(1));  // gone and back, elsewhere
  feed.Publish();
  const std::optional<CacheChanges> changes = feed.Read(place);
  ASSERT_TRUE(changes.has_value());
  EXPECT_TRUE(changes->stored.empty());
  EXPECT_TRUE(changes->evicted.empty());
}

TEST(CacheFeed, AReaderThatLagsTooFarBeginsAgain) {
  CacheFeed feed({.blocks = 8, .changes_max = 3});
  CacheFeed::Place place;
  (void)feed.Read(place);
  for (std::uint8_t i = 0; i < 4; ++i) feed.Stored(i, HashOf(i));
  feed.Publish();
  const std::optional<CacheChanges> changes = feed.Read(place);
  ASSERT_TRUE(changes.has_value());
  EXPECT_TRUE(changes->cleared);
  EXPECT_EQ(changes->stored.size(), 4u);
  EXPECT_FALSE(feed.Read(place).has_value());
}

TEST(CacheFeed, TellsNoMoreThanFitsInAMessage) {
  CacheFeed feed({.blocks = 10, .changes_max = 100, .read_max = 4});
  for (std::uint8_t i = 0; i < 10; ++i) feed.Stored(i, HashOf(i));
  feed.Publish();
  CacheFeed::Place place;
  std::set<BlockHash> seen;
  int reads = 0;
  while (const std::optional<CacheChanges> changes = feed.Read(place)) {
    EXPECT_EQ(changes->cleared, reads == 0);
    EXPECT_LE(changes->stored.size(), 4u);
    seen.insert(changes->stored.begin(), changes->stored.end());
    ++reads;
  }
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(reads, 3);
}

// What changes while everything is being told, in a part that has been told or in one that has not.
TEST(CacheFeed, ChangesDuringTheListingAreNotLost) {
  CacheFeed feed({.blocks = 4, .changes_max = 100, .read_max = 2});
  feed.Stored(0, HashOf(1));
  feed.Stored(3, HashOf(2));
  feed.Publish();
  CacheFeed::Place place;
  std::set<BlockHash> seen;
  const auto take = [&] {
    const std::optional<CacheChanges> changes = feed.Read(place);
    if (!changes.has_value()) return false;
    if (changes->cleared) seen.clear();
    seen.insert(changes->stored.begin(), changes->stored.end());
    for (const BlockHash& hash : changes->evicted) seen.erase(hash);
    return true;
  };
  ASSERT_TRUE(take());
  feed.Evicted(0, HashOf(1));
  feed.Evicted(3, HashOf(2));
  feed.Stored(2, HashOf(3));  // will be listed
  feed.Publish();
  ASSERT_TRUE(take());
  EXPECT_TRUE(seen.contains(HashOf(3)));
  feed.Evicted(2, HashOf(3));  // undoes a change that the listing has shown already
  feed.Publish();
  while (take()) {
  }
  EXPECT_TRUE(seen.empty());
}

TEST(CacheFeed, WriterAndReadersAtTheSameTime) {
  constexpr std::uint32_t kBlocks = 64;
  CacheFeed feed({.blocks = kBlocks, .changes_max = 40, .read_max = 16});
  std::atomic<bool> written = false;
  std::vector<std::set<BlockHash>> seen(2);
  std::vector<std::thread> readers;
  for (std::set<BlockHash>& mine : seen) {
    readers.emplace_back([&] {
      CacheFeed::Place place;
      bool last = false;
      while (true) {
        const std::optional<CacheChanges> changes = feed.Read(place);
        if (!changes.has_value()) {
          if (last) return;
          last = written;
          std::this_thread::yield();
          continue;
        }
        if (changes->cleared) mine.clear();
        mine.insert(changes->stored.begin(), changes->stored.end());
        for (const BlockHash& hash : changes->evicted) mine.erase(hash);
      }
    });
  }
  std::vector<bool> there(kBlocks, false);
  for (std::uint32_t i = 0; i < 20'000; ++i) {
    const std::uint32_t block = i * 37 % kBlocks;
    const BlockHash hash = HashOf(static_cast<std::uint8_t>(block));
    there[block] ? feed.Evicted(block, hash) : feed.Stored(block, hash);
    there[block] = !there[block];
    if (i % 5 == 0) feed.Publish();
  }
  // A reader may have been at work at each of these.
  std::set<BlockHash> expected;
  for (std::uint32_t block = 0; block < kBlocks; ++block) {
    if (there[block]) expected.insert(HashOf(static_cast<std::uint8_t>(block)));
  }
  CacheFeed::Place place;
  std::set<BlockHash> now;
  while (now != expected) {
    feed.Publish();
    while (const std::optional<CacheChanges> changes = feed.Read(place)) {
      if (changes->cleared) now.clear();
      now.insert(changes->stored.begin(), changes->stored.end());
      for (const BlockHash& hash : changes->evicted) now.erase(hash);
    }
  }
  written = true;
  for (std::thread& reader : readers) reader.join();
  for (const std::set<BlockHash>& mine : seen) EXPECT_EQ(mine, expected);
}

}  // namespace
}  // namespace baleen::worker
