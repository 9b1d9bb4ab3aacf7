#include "router/text/encoding/prompt_cache.h"

#include <iterator>

namespace baleen::router {
namespace {

// A node of the list and one of the map, their links and what malloc adds.
constexpr std::size_t kEntryBytes = 192;

}  // namespace

std::size_t PromptCache::BytesOf(const Entry& entry) {
  return kEntryBytes + entry.text.capacity() + entry.ids.capacity() * sizeof(std::int32_t);
}

bool PromptCache::Find(std::string_view text, std::vector<std::int32_t>* ids) {
  if (text.size() < kTextBytesMin) return false;
  const std::lock_guard lock(mutex_);
  const auto found = by_text_.find(text);
  if (found == by_text_.end()) {
    ++counts_.misses;
    return false;
  }
  ++counts_.hits;
  entries_.splice(entries_.begin(), entries_, found->second);
  ids->insert(ids->end(), found->second->ids.begin(), found->second->ids.end());
  return true;
}

void PromptCache::Put(std::string_view text, std::span<const std::int32_t> ids) {
  if (text.size() < kTextBytesMin) return;
  std::list<Entry> made;  // outside of the lock
  made.push_back({.text = std::string(text), .ids = {ids.begin(), ids.end()}});
  const std::size_t bytes = BytesOf(made.front());
  if (bytes > bytes_max_) return;
  std::list<Entry> dropped;  // freed outside of the lock as well
  const std::lock_guard lock(mutex_);
  if (by_text_.contains(text)) return;  // another thread was faster
  entries_.splice(entries_.begin(), made);
  by_text_.emplace(entries_.front().text, entries_.begin());
  counts_.bytes += bytes;
  ++counts_.entries;
  while (counts_.bytes > bytes_max_) {
    const auto last = std::prev(entries_.end());
    counts_.bytes -= BytesOf(*last);
    --counts_.entries;
    by_text_.erase(last->text);
    dropped.splice(dropped.begin(), entries_, last);
  }
}

PromptCache::Counts PromptCache::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace baleen::router
