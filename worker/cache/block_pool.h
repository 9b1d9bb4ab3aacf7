// The KV memory of a rank: one arena cut into blocks of 64 tokens, handed out as lists that return
// themselves. Blocks whose content is complete can be cached under a name: other sequences that
// begin alike share them, and they outlive their holders until their room is needed.
//
// Threading: a pool and its lists belong to one thread, the engine's. The bytes of a block may be
// read and written by others (the data plane) while some list holds it. Nobody writes to a cached
// block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/cache/prefix_index.h"

namespace baleen::worker {

class BlockPool;

// Blocks held for one sequence, in the order of its positions: `cached` ones, which may be shared
// with others, then its own. Move-only; gives the blocks back when it goes.
class BlockList {
 public:
  BlockList() = default;
  ~BlockList() { Release(); }
  BlockList(const BlockList&) = delete;
  BlockList& operator=(const BlockList&) = delete;
  BlockList(BlockList&& other) noexcept;
  BlockList& operator=(BlockList&& other) noexcept;

  // Entry i is the block of positions [64 i, 64 i + 64).
  std::span<const std::uint32_t> ids() const { return ids_; }
  std::size_t size() const { return ids_.size(); }
  bool empty() const { return ids_.empty(); }

  // So many leading blocks were found in the cache, or are kept there: complete, and read only.
  std::uint32_t cached() const { return cached_; }

  // Memory of entry `index` (< size()).
  std::span<std::byte> bytes(std::size_t index) const;

  void Release();

 private:
  friend class BlockPool;
  BlockList(BlockPool* pool, std::vector<std::uint32_t> ids, std::uint32_t cached)
      : pool_(pool), ids_(std::move(ids)), cached_(cached) {}

  BlockPool* pool_ = nullptr;
  std::vector<std::uint32_t> ids_;
  std::uint32_t cached_ = 0;
  bool closed_ = false;  // see BlockPool::Keep
};

class BlockPool {
 public:
  struct Options {
    std::uint32_t blocks = 0;     // at least 1
    std::size_t block_bytes = 0;  // at least 1; the arena is blocks * block_bytes, aligned to 64
    CacheFeed* feed = nullptr;    // hears what is cached; borrowed
  };

  // Takes the arena's address space at once; the operating system commits a page when it is first
  // written. INVALID_ARGUMENT for zero sizes, RESOURCE_EXHAUSTED when the arena cannot be had.
  static absl::StatusOr<std::unique_ptr<BlockPool>> Create(const Options& options);

  // Every list must be gone.
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // `count` blocks (0 gives an empty list), the first of them from the cache as far as it holds
  // `chain` (at most `count` names). Nothing when fewer are free than that takes: all or none, so
  // two sequences never wait for each other. Makes room by evicting cached blocks that nobody
  // holds.
  std::optional<BlockList> Reserve(std::uint32_t count, BlockChain chain = {});

  // What Reserve would find now. It takes count - held free blocks.
  PrefixIndex::Match Find(BlockChain chain) const { return index_.Find(chain); }

  // Others may have cached more of `chain` (a prefix of that which `list` was reserved with, or
  // all) since: takes those blocks in place of the list's own, whose content is lost, and returns
  // list.cached().
  std::uint32_t Extend(BlockList& list, BlockChain chain);

  // The list's blocks that `chain` names are complete: they enter the cache. A block that has got
  // there from another list takes the place of this one's own, which holds the same: from then on
  // it may be read by others. A block that cannot be cached, because its name contradicts what is
  // or the list's beginning is forgotten, stays what it is, and so do all after it, for good.
  void Keep(BlockList& list, BlockChain chain);

  // The content of the list's blocks is in doubt: whatever was computed from its first block leaves
  // the cache.
  void Forget(const BlockList& list);

  std::byte* base() const { return arena_.get(); }
  std::uint32_t total() const { return options_.blocks; }
  // Cached blocks that nobody holds are free, not used.
  std::uint32_t used() const { return options_.blocks - free_count(); }
  std::uint32_t free_count() const {
    return static_cast<std::uint32_t>(free_.size()) + index_.idle();
  }
  std::uint32_t cached_count() const { return index_.idle(); }  // of the free ones
  std::uint64_t evicted_total() const { return evicted_total_; }
  // Entries of all lists: more than used() as far as blocks are shared.
  std::size_t references() const { return references_; }
  std::size_t block_bytes() const { return options_.block_bytes; }

 private:
  friend class BlockList;
  struct ArenaDeleter {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Arena = std::unique_ptr<std::byte, ArenaDeleter>;

  BlockPool(const Options& options, Arena arena);
  std::uint32_t TakeFree();
  void Share(std::uint32_t cached_block);
  void Drop(std::uint32_t block);
  void Return(std::span<const std::uint32_t> ids);
  bool KeepNext(BlockList& list, const contract::BlockHash& hash);

  const Options options_;
  const Arena arena_;
  PrefixIndex index_;
  std::vector<std::uint32_t> free_;  // a stack: the block that was used last is still in cache
  std::vector<std::uint32_t> references_of_;  // by block id
  std::size_t references_ = 0;
  std::uint64_t evicted_total_ = 0;
};

}  // namespace baleen::worker
