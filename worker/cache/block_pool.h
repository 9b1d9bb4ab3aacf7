// The KV memory of a rank: one arena cut into blocks of 64 tokens, handed out as lists that return
// themselves.
//
// Threading: a pool and its lists belong to one thread, the engine's. The bytes of a block may be
// read and written by others (the data plane) while some list holds it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::worker {

class BlockPool;

// Blocks held for one sequence, in the order of its positions. Move-only; gives the blocks back
// when it goes.
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

  // Memory of entry `index` (< size()).
  std::span<std::byte> bytes(std::size_t index) const;

  void Release();

 private:
  friend class BlockPool;
  BlockList(BlockPool* pool, std::vector<std::uint32_t> ids) : pool_(pool), ids_(std::move(ids)) {}

  BlockPool* pool_ = nullptr;
  std::vector<std::uint32_t> ids_;
};

class BlockPool {
 public:
  struct Options {
    std::uint32_t blocks = 0;     // at least 1
    std::size_t block_bytes = 0;  // at least 1; the arena is blocks * block_bytes, aligned to 64
  };

  // Takes the arena's address space at once; the operating system commits a page when it is first
  // written. INVALID_ARGUMENT for zero sizes, RESOURCE_EXHAUSTED when the arena cannot be had.
  static absl::StatusOr<std::unique_ptr<BlockPool>> Create(const Options& options);

  // Every list must be gone.
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // `count` blocks (0 gives an empty list), or nothing when fewer are free: all or none, so two
  // sequences never wait for each other.
  std::optional<BlockList> Reserve(std::uint32_t count);

  std::byte* base() const { return arena_.get(); }
  std::uint32_t total() const { return options_.blocks; }
  std::uint32_t used() const { return options_.blocks - free_count(); }
  std::uint32_t free_count() const { return static_cast<std::uint32_t>(free_.size()); }
  std::size_t block_bytes() const { return options_.block_bytes; }

 private:
  friend class BlockList;
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  using Arena = std::unique_ptr<std::byte, Free>;

  BlockPool(const Options& options, Arena arena);
  void Return(std::span<const std::uint32_t> ids);

  const Options options_;
  const Arena arena_;
  std::vector<std::uint32_t> free_;  // a stack: the block that was used last is still in cache
  std::vector<bool> held_;           // by block id: finds a block that is returned twice
};

}  // namespace baleen::worker
