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
    : pool_(std::exchange(other.pool_, nullptr)), ids_(std::exchange(other.ids_, {})) {}

BlockList& BlockList::operator=(BlockList&& other) noexcept {
  if (this != &other) {
    Release();
    pool_ = std::exchange(other.pool_, nullptr);
    ids_ = std::exchange(other.ids_, {});
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
    : options_(options), arena_(std::move(arena)), held_(options.blocks, false) {
  free_.reserve(options.blocks);
  for (std::uint32_t id = options.blocks; id-- > 0;) free_.push_back(id);
}

BlockPool::~BlockPool() {
  BALEEN_CHECK(used() == 0, "every block is returned before its pool goes");
}

std::optional<BlockList> BlockPool::Reserve(std::uint32_t count) {
  if (count > free_.size()) return std::nullopt;
  std::vector<std::uint32_t> ids;
  ids.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    ids.push_back(free_.back());
    free_.pop_back();
    held_[ids.back()] = true;
  }
  return BlockList(this, std::move(ids));
}

void BlockPool::Return(std::span<const std::uint32_t> ids) {
  for (const std::uint32_t id : ids) {
    BALEEN_CHECK(id < options_.blocks && held_[id], "a block is returned once");
    held_[id] = false;
    free_.push_back(id);
  }
}

}  // namespace baleen::worker
