#include "worker/cache/cache_feed.h"

#include <algorithm>
#include <map>
#include <utility>

#include "observability/base/check.h"

namespace baleen::worker {

CacheFeed::CacheFeed(const Options& options) : options_(options), content_(options.blocks) {
  BALEEN_CHECK(options.changes_max > 0 && options.read_max > 0, "a feed has room");
}

void CacheFeed::Stored(std::uint32_t block, const contract::BlockHash& hash) {
  pending_.push_back({.block = block, .stored = true, .hash = hash});
}

void CacheFeed::Evicted(std::uint32_t block, const contract::BlockHash& hash) {
  pending_.push_back({.block = block, .stored = false, .hash = hash});
}

void CacheFeed::Publish() {
  if (pending_.empty()) return;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) {
    if (pending_.size() <= options_.changes_max) return;
    lock.lock();
  }
  for (Change& change : pending_) {
    std::optional<contract::BlockHash>& content = content_[change.block];
    content = change.stored ? std::optional(change.hash) : std::nullopt;
    changes_.push_back(std::move(change));
    if (changes_.size() > options_.changes_max) changes_.pop_front();
  }
  end_ += pending_.size();
  pending_.clear();
}

std::optional<CacheChanges> CacheFeed::Read(Place& place) const {
  if (place.begun_ && !place.listing_.has_value() && place.change_ == end_) return std::nullopt;
  std::vector<Change> news;
  {
    std::lock_guard lock(mutex_);
    const std::uint64_t remembered_from = end_ - changes_.size();
    if (!place.begun_ || place.change_ < remembered_from) {
      place.begun_ = true;
      place.listing_ = 0;
      place.change_ = end_;
    }
    if (place.listing_.has_value()) return List(place);
    const auto begin =
        changes_.begin() + static_cast<std::ptrdiff_t>(place.change_ - remembered_from);
    const auto count = std::min<std::size_t>(end_ - place.change_, options_.read_max);
    news.assign(begin, begin + static_cast<std::ptrdiff_t>(count));
  }
  // Only the last change of a name counts. A block that came and went is left out altogether,
  // unless the listing may have shown it.
  struct Net {
    bool came_first = false;
    bool is_there = false;
    bool listed = false;
  };
  std::map<contract::BlockHash, Net> net;
  for (std::size_t i = 0; i < news.size(); ++i) {
    const auto [entry, is_new] = net.try_emplace(
        news[i].hash,
        Net{.came_first = news[i].stored, .listed = place.change_ + i < place.listed_at_});
    entry->second.is_there = news[i].stored;
  }
  CacheChanges changes;
  for (const auto& [hash, state] : net) {
    if (state.came_first != state.is_there && !state.listed) continue;
    (state.is_there ? changes.stored : changes.evicted).push_back(hash);
  }
  place.change_ += news.size();
  return changes;
}

// Everything, in pieces: what changes meanwhile is among the changes that are read afterwards.
CacheChanges CacheFeed::List(Place& place) const {
  CacheChanges changes{.cleared = *place.listing_ == 0};
  const std::size_t begin = *place.listing_;
  const std::size_t end = std::min(begin + options_.read_max, content_.size());
  for (std::size_t block = begin; block < end; ++block) {
    if (content_[block].has_value()) changes.stored.push_back(*content_[block]);
  }
  place.listing_ = static_cast<std::uint32_t>(end);
  if (end == content_.size()) {
    place.listing_.reset();
    place.listed_at_ = end_;
  }
  return changes;
}

}  // namespace baleen::worker
