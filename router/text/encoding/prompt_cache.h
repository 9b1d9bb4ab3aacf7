// Token ids of texts that have been encoded before. A conversation grows by a turn at a time: what
// it had before comes again, and is not encoded again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"

namespace baleen::router {

// Between two control tokens, a prompt is encoded by itself. Such texts are what is kept here, with
// their bytes: a hit is an equal text, not an equal hash. One cache serves one tokenizer. What has
// not been asked for longest goes first. Thread-safe.
//
// How long encoding takes tells somebody with a copy of a long text whether it came by lately, as
// caches of KV do; short ones, which could be guessed, are not kept.
class PromptCache {
 public:
  // Shorter texts are encoded in a few microseconds.
  static constexpr std::size_t kTextBytesMin = 128;

  struct Counts {
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::size_t entries = 0;
    std::size_t bytes = 0;  // of all entries, what they are kept in included
  };

  // bytes_max: of all entries; 0 keeps nothing.
  explicit PromptCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  PromptCache(const PromptCache&) = delete;
  PromptCache& operator=(const PromptCache&) = delete;

  // Appends the ids of `text` to `ids` if they are known.
  bool Find(std::string_view text, std::vector<std::int32_t>* ids);
  void Put(std::string_view text, std::span<const std::int32_t> ids);

  Counts counts() const;

 private:
  struct Entry {
    std::string text;
    std::vector<std::int32_t> ids;
  };

  // Seeded anew in each process: nobody can make texts that fall together.
  struct Hash {
    std::size_t operator()(std::string_view text) const {
      return absl::Hash<absl::string_view>()(absl::string_view(text.data(), text.size()));
    }
  };

  static std::size_t BytesOf(const Entry& entry);

  const std::size_t bytes_max_;
  mutable std::mutex mutex_;  // guards what follows
  std::list<Entry> entries_;  // asked for last first
  std::unordered_map<std::string_view, std::list<Entry>::iterator, Hash> by_text_;
  Counts counts_;
};

}  // namespace baleen::router
