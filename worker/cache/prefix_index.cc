#include "worker/cache/prefix_index.h"

#include <algorithm>

#include "observability/base/check.h"
#include "worker/cache/cache_feed.h"

namespace baleen::worker {
namespace {

// The number of leading indexes below `end` for which `holds`, which holds for none after the first
// for which it does not.
template <typename Holds>
std::uint32_t CountLeading(std::uint32_t end, Holds holds) {
  std::uint32_t begin = 0;
  while (begin < end) {
    const std::uint32_t middle = begin + (end - begin) / 2;
    if (holds(middle)) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

}  // namespace

PrefixIndex::PrefixIndex(std::uint32_t blocks, CacheFeed* feed) : nodes_(blocks), feed_(feed) {
  by_hash_.reserve(blocks);  // never grows in the middle of a step
}

std::uint32_t PrefixIndex::At(const contract::BlockHash& hash, std::uint32_t number) const {
  const auto found = by_hash_.find(hash);
  return found != by_hash_.end() && nodes_[found->second].number == number ? found->second : kNone;
}

PrefixIndex::Match PrefixIndex::Find(BlockChain chain) const {
  const auto at = [&](std::uint32_t number) { return At(chain[number], number); };
  const std::uint32_t cached =
      CountLeading(static_cast<std::uint32_t>(chain.size()),
                   [&](std::uint32_t number) { return at(number) != kNone; });
  const std::uint32_t held = CountLeading(cached, [&](std::uint32_t number) {
    const std::uint32_t block = at(number);
    return block != kNone && !nodes_[block].idle;
  });
  return {.cached = cached, .held = held};
}

std::uint32_t PrefixIndex::Walk(std::uint32_t last, std::uint32_t from,
                                std::vector<std::uint32_t>& ids) const {
  BALEEN_CHECK(nodes_[last].cached && nodes_[last].number >= from, "a chain ends with its last");
  const std::size_t begin = ids.size();
  ids.resize(begin + nodes_[last].number - from + 1);
  std::uint32_t block = last;
  for (std::size_t i = ids.size(); i-- > begin;) {
    ids[i] = block;
    block = nodes_[block].before;
  }
  return block;
}

bool PrefixIndex::Insert(std::uint32_t block, std::uint32_t before,
                         const contract::BlockHash& hash) {
  BALEEN_CHECK(!nodes_[block].cached, "a block enters the cache once");
  BALEEN_CHECK(before == kNone || nodes_[before].cached, "a chain has no gaps");
  if (!by_hash_.try_emplace(hash, block).second) return false;
  const bool first = before == kNone;
  nodes_[block] = {.hash = hash,
                   .number = first ? 0 : nodes_[before].number + 1,
                   .before = before,
                   .first = first ? block : nodes_[before].first,
                   .cached = true};
  if (feed_ != nullptr) feed_->Stored(block, hash);
  return true;
}

void PrefixIndex::SetIdle(std::uint32_t block) {
  Node& node = nodes_[block];
  BALEEN_CHECK(node.cached && !node.idle, "a cached block goes idle once");
  node.idle = true;
  node.older = youngest_;
  node.younger = kNone;
  (youngest_ == kNone ? oldest_ : nodes_[youngest_].younger) = block;
  youngest_ = block;
  ++idle_;
}

void PrefixIndex::SetHeld(std::uint32_t block) {
  Node& node = nodes_[block];
  BALEEN_CHECK(node.cached && node.idle, "only an idle block is taken");
  node.idle = false;
  (node.older == kNone ? oldest_ : nodes_[node.older].younger) = node.younger;
  (node.younger == kNone ? youngest_ : nodes_[node.younger].older) = node.older;
  --idle_;
}

std::uint32_t PrefixIndex::EvictOldest() {
  BALEEN_CHECK(idle_ > 0, "there is an idle block");
  const std::uint32_t block = oldest_;
  SetHeld(block);
  Remove(block);
  return block;
}

void PrefixIndex::Forget(std::uint32_t block, std::vector<std::uint32_t>& idle) {
  if (!nodes_[block].cached) return;
  const std::uint32_t first = nodes_[block].first;
  for (std::uint32_t other = 0; other < nodes_.size(); ++other) {
    if (!nodes_[other].cached || nodes_[other].first != first) continue;
    if (nodes_[other].idle) {
      SetHeld(other);
      idle.push_back(other);
    }
    Remove(other);
  }
}

void PrefixIndex::Remove(std::uint32_t block) {
  by_hash_.erase(nodes_[block].hash);
  nodes_[block].cached = false;
  if (feed_ != nullptr) feed_->Evicted(block, nodes_[block].hash);
}

}  // namespace baleen::worker
