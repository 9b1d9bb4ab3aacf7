// Compiled grammars that were used of late: agents send the same schema with every request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "text/grammar/grammar.h"

namespace baleen::text {

struct GrammarCacheLimits {
  std::size_t entries_max = 256;
  // Of sources. A compiled grammar takes some 20 bytes for each of its source, and 100 KB at least.
  std::size_t source_bytes_max = std::size_t{4} << 20;
};

// Least recently used go first. Any thread; compiling happens outside of the lock, so two threads
// may compile one grammar at the same time.
class GrammarCache {
 public:
  GrammarCache(std::shared_ptr<const Vocabulary> vocabulary, const GrammarLimits& limits,
               const GrammarCacheLimits& cache_limits = {});

  // From the cache, or compiled. Errors are as of Grammar::Compile, and not kept.
  absl::StatusOr<std::shared_ptr<const Grammar>> Get(const GrammarSource& source);

  const Vocabulary& vocabulary() const { return *vocabulary_; }
  std::size_t entries() const;

 private:
  struct Entry {
    GrammarSource source;
    std::shared_ptr<const Grammar> grammar;
  };
  using Entries = std::list<Entry>;  // most recently used first

  std::shared_ptr<const Grammar> Find(const GrammarSource& source, std::uint64_t hash);
  void Keep(const GrammarSource& source, std::uint64_t hash,
            std::shared_ptr<const Grammar> grammar);

  const std::shared_ptr<const Vocabulary> vocabulary_;
  const GrammarLimits limits_;
  const GrammarCacheLimits cache_limits_;

  mutable std::mutex mutex_;
  // Guarded by mutex_:
  Entries entries_;
  std::unordered_multimap<std::uint64_t, Entries::iterator> by_hash_;
  std::size_t source_bytes_ = 0;
};

}  // namespace baleen::text
