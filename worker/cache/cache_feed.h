// What the routers are told of a rank's cache: which blocks it holds, and each change.
//
// One writer, the engine's thread: it notes changes as they happen and publishes them after a step,
// without ever waiting for a reader. Many readers, one for each attached router, each at its own
// place: a reader begins with all that is there and then gets the changes; one that has fallen
// behind further than the feed remembers begins again. So a slow router costs no memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <vector>

#include "proto/contract/block_hash.h"
#include "proto/contract/limits.h"

namespace baleen::worker {

// As baleen.v1.CacheEvents: at first all went if `cleared`, then these came, then those went.
struct CacheChanges {
  bool cleared = false;
  std::vector<contract::BlockHash> stored;
  std::vector<contract::BlockHash> evicted;
};

class CacheFeed {
 public:
  struct Options {
    std::uint32_t blocks = 0;  // ids are below
    // Changes that are remembered for readers: what a lagging one may miss before it begins again.
    std::size_t changes_max = contract::kCacheHashesPerMessage;
    // Hashes that one Read gives at most.
    std::size_t read_max = contract::kCacheHashesPerMessage;
  };
  explicit CacheFeed(const Options& options);

  // The writer. Publish leaves the changes for the next time when a reader is at work just now,
  // unless there are more than changes_max: then it waits for the one copy that the reader makes.
  void Stored(std::uint32_t block, const contract::BlockHash& hash);
  void Evicted(std::uint32_t block, const contract::BlockHash& hash);
  void Publish();

  // Where a reader is; at first, before everything.
  class Place {
   private:
    friend class CacheFeed;
    bool begun_ = false;
    std::uint64_t change_ = 0;              // the next to read
    std::optional<std::uint32_t> listing_;  // everything is being read, from this block id on
    std::uint64_t listed_at_ = 0;           // changes before this may be in the listing already
  };

  // Any thread, one at a time for each place: what came next, and moves `place` on. Empty when
  // nothing did. Changes that undo each other within one Read may be left out.
  std::optional<CacheChanges> Read(Place& place) const;

 private:
  struct Change {
    std::uint32_t block = 0;
    bool stored = false;
    contract::BlockHash hash;
  };

  CacheChanges List(Place& place) const;

  const Options options_;
  std::vector<Change> pending_;  // the writer's

  mutable std::mutex mutex_;
  // Guarded by mutex_:
  std::vector<std::optional<contract::BlockHash>> content_;  // by block id
  std::deque<Change> changes_;
  // The number of the change after the last; written under mutex_.
  std::atomic<std::uint64_t> end_ = 0;
};

}  // namespace baleen::worker
