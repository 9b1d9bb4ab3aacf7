#include "worker/cache/block_pool.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "observability/base/check.h"

namespace baleen::worker {
namespace {

constexpr std::size_t kArenaAlignment = 64;  // a cache line, and an AVX-512 register

}  // namespace

BlockList::BlockList(BlockList&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      ids_(std::exchange(other.ids_, {})),
      cached_(std::exchange(other.cached_, 0)),
      closed_(std::exchange(other.closed_, false)) {}

BlockList& BlockList::operator=(BlockList&& other) noexcept {
  if (this != &other) {
    Release();
    pool_ = std::exchange(other.pool_, nullptr);
    ids_ = std::exchange(other.ids_, {});
    cached_ = std::exchange(other.cached_, 0);
    closed_ = std::exchange(other.closed_, false);
  }
  return *this;
}

std::span<std::byte> BlockList::bytes(std::size_t index) const {
  BALEEN_CHECK(index < ids_.size(), "a list gives only blocks that it holds");
  return {pool_->base() + ids_[index] * pool_->block_bytes(), pool_->block_bytes()};
}

void BlockList::Release() {
  if (pool_ != nullptr) pool_->Return(ids_);
  pool_ = nullptr;
  ids_.clear();
  cached_ = 0;
  closed_ = false;
}

absl::StatusOr<std::unique_ptr<BlockPool>> BlockPool::Create(const Options& options) {
  if (options.blocks == 0 || options.block_bytes == 0) {
    return absl::InvalidArgumentError(fmt::format("KV cache of {} blocks of {} bytes is empty",
                                                  options.blocks, options.block_bytes));
  }
  constexpr std::size_t kBytesMax = std::numeric_limits<std::ptrdiff_t>::max() - kArenaAlignment;
  std::byte* memory = nullptr;
  if (options.block_bytes <= kBytesMax / options.blocks) {
    const std::size_t bytes = options.blocks * options.block_bytes;
    const std::size_t rounded = (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
    memory = static_cast<std::byte*>(std::aligned_alloc(kArenaAlignment, rounded));
  }
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        fmt::format("KV cache of {} blocks of {} bytes does not fit in memory", options.blocks,
                    options.block_bytes));
  }
  return std::unique_ptr<BlockPool>(new BlockPool(options, Arena(memory)));
}

BlockPool::BlockPool(const Options& options, Arena arena)
    : options_(options),
      arena_(std::move(arena)),
      index_(options.blocks, options.feed),
      references_of_(options.blocks, 0) {
  free_.reserve(options.blocks);
  for (std::uint32_t id = options.blocks; id-- > 0;) free_.push_back(id);
}

BlockPool::~BlockPool() {
  BALEEN_CHECK(references_ == 0, "every block is returned before its pool goes");
}

std::optional<BlockList> BlockPool::Reserve(std::uint32_t count, BlockChain chain) {
  BALEEN_CHECK(chain.size() <= count, "a chain names blocks of the list");
  const std::uint32_t cached = index_.Find(chain).cached;
  std::vector<std::uint32_t> ids;
  ids.reserve(count);
  if (cached > 0) index_.Walk(index_.At(chain[cached - 1], cached - 1), 0, ids);
  std::uint32_t taken = count - cached;
  for (const std::uint32_t id : ids) taken += references_of_[id] == 0 ? 1 : 0;
  if (taken > free_count()) return std::nullopt;
  for (const std::uint32_t id : ids) Share(id);
  while (ids.size() < count) ids.push_back(TakeFree());
  return BlockList(this, std::move(ids), cached);
}

std::uint32_t BlockPool::Extend(BlockList& list, BlockChain chain) {
  const std::uint32_t own = list.cached_;
  if (list.closed_ || own >= chain.size() || index_.At(chain[own], own) == PrefixIndex::kNone)
    return own;
  const std::uint32_t cached = index_.Find(chain).cached;
  if (cached <= own) return own;
  std::vector<std::uint32_t> found;
  const std::uint32_t before = index_.Walk(index_.At(chain[cached - 1], cached - 1), own, found);
  // Otherwise the list's own beginning has left the cache, and is not what these follow.
  if (before != (own == 0 ? PrefixIndex::kNone : list.ids_[own - 1])) return own;
  for (const std::uint32_t id : found) {
    Share(id);
    Drop(std::exchange(list.ids_[list.cached_++], id));
  }
  return list.cached_;
}

void BlockPool::Keep(BlockList& list, BlockChain chain) {
  BALEEN_CHECK(chain.size() <= list.size(), "a chain names blocks of the list");
  while (!list.closed_ && list.cached_ < chain.size()) {
    list.closed_ = !KeepNext(list, chain[list.cached_]);
  }
}

bool BlockPool::KeepNext(BlockList& list, const contract::BlockHash& hash) {
  const std::uint32_t number = list.cached_;
  std::uint32_t& block = list.ids_[number];
  const std::uint32_t before = number == 0 ? PrefixIndex::kNone : list.ids_[number - 1];
  // Forgotten: what follows is not cached either.
  if (before != PrefixIndex::kNone && !index_.IsCached(before)) return false;
  if (!index_.Insert(block, before, hash)) {
    const std::uint32_t other = index_.At(hash, number);
    if (other == PrefixIndex::kNone || index_.Before(other) != before) return false;
    Share(other);
    Drop(std::exchange(block, other));
  }
  ++list.cached_;
  return true;
}

void BlockPool::Forget(const BlockList& list) {
  if (!list.empty()) index_.Forget(list.ids_.front(), free_);
}

// Precondition: free_count() > 0. The block is nobody else's, and not cached.
std::uint32_t BlockPool::TakeFree() {
  std::uint32_t block = 0;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    block = index_.EvictOldest();
    ++evicted_total_;
  }
  ++references_of_[block];
  ++references_;
  return block;
}

void BlockPool::Share(std::uint32_t cached_block) {
  if (references_of_[cached_block] == 0) index_.SetHeld(cached_block);
  ++references_of_[cached_block];
  ++references_;
}

void BlockPool::Drop(std::uint32_t block) {
  BALEEN_CHECK(block < options_.blocks && references_of_[block] > 0, "a block is returned once");
  --references_;
  if (--references_of_[block] > 0) return;
  if (index_.IsCached(block)) {
    index_.SetIdle(block);
  } else {
    free_.push_back(block);
  }
}

// The end first: it makes room before the beginning that it needs.
void BlockPool::Return(std::span<const std::uint32_t> ids) {
  for (std::size_t i = ids.size(); i-- > 0;) Drop(ids[i]);
}

}  // namespace baleen::worker
