#include "text/grammar/grammar_cache.h"

#include <functional>
#include <iterator>
#include <string_view>
#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::text {
namespace {

std::uint64_t HashOf(const GrammarSource& source) {
  return std::hash<std::string_view>{}(source.text) ^ static_cast<std::uint64_t>(source.kind);
}

}  // namespace

GrammarCache::GrammarCache(std::shared_ptr<const Vocabulary> vocabulary,
                           const GrammarLimits& limits, const GrammarCacheLimits& cache_limits)
    : vocabulary_(std::move(vocabulary)), limits_(limits), cache_limits_(cache_limits) {}

absl::StatusOr<std::shared_ptr<const Grammar>> GrammarCache::Get(const GrammarSource& source) {
  const std::uint64_t hash = HashOf(source);
  if (std::shared_ptr<const Grammar> known = Find(source, hash)) return known;
  BALEEN_ASSIGN_OR_RETURN(std::shared_ptr<const Grammar> grammar,
                          Grammar::Compile(vocabulary_, source, limits_));
  Keep(source, hash, grammar);
  return grammar;
}

std::size_t GrammarCache::entries() const {
  std::lock_guard lock(mutex_);
  return entries_.size();
}

std::shared_ptr<const Grammar> GrammarCache::Find(const GrammarSource& source, std::uint64_t hash) {
  std::lock_guard lock(mutex_);
  const auto [begin, end] = by_hash_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (it->second->source != source) continue;
    entries_.splice(entries_.begin(), entries_, it->second);
    return it->second->grammar;
  }
  return nullptr;
}

void GrammarCache::Keep(const GrammarSource& source, std::uint64_t hash,
                        std::shared_ptr<const Grammar> grammar) {
  if (source.text.size() > cache_limits_.source_bytes_max || cache_limits_.entries_max == 0) return;
  if (Find(source, hash)) return;  // another thread was faster
  std::lock_guard lock(mutex_);
  entries_.push_front({.source = source, .grammar = std::move(grammar)});
  by_hash_.emplace(hash, entries_.begin());
  source_bytes_ += source.text.size();
  while (entries_.size() > cache_limits_.entries_max ||
         source_bytes_ > cache_limits_.source_bytes_max) {
    const Entries::iterator last = std::prev(entries_.end());
    const auto [begin, end] = by_hash_.equal_range(HashOf(last->source));
    for (auto it = begin; it != end; ++it) {
      if (it->second != last) continue;
      by_hash_.erase(it);
      break;
    }
    source_bytes_ -= last->source.text.size();
    entries_.erase(last);
  }
}

}  // namespace baleen::text
