// Token ids to text, one token at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "router/text/utf8.h"

namespace baleen::router {

// The bytes that each token stands for. Text is what the bytes of its tokens spell together: a
// token may end inside a character. Read-only once built.
class TokenTable {
 public:
  struct Entry {
    std::string_view bytes;
    bool exists = false;   // the id belongs to a token
    bool special = false;  // <｜end▁of▁sentence｜> and the like
    bool control = false;  // steers the model: special, or of the form <...>
  };

  // Ids count up from 0; also for those without a token, which add nothing to a text.
  void Add(const Entry& entry);
  // Text made from the first token on loses one space at its start (SentencePiece's convention).
  void set_strips_leading_space(bool strips) { strips_leading_space_ = strips; }

  // Any `id`: one that is out of range does not exist.
  Entry At(std::int32_t id) const;
  std::int32_t id_end() const { return static_cast<std::int32_t>(flags_.size()); }
  bool strips_leading_space() const { return strips_leading_space_; }

 private:
  std::string bytes_;
  std::vector<std::uint32_t> offsets_ = {0};
  std::vector<std::uint8_t> flags_;
  bool strips_leading_space_ = false;
};

// The text of one reply as it grows. All pieces together are the text of all tokens together,
// whatever the pieces; each is well-formed UTF-8. A token costs time in proportion to its own
// bytes: nothing but the bytes of one unfinished character is kept. Not thread-safe.
class Detokenizer {
 public:
  // `table` outlives this. Special tokens add nothing to the text if `skip_special`.
  explicit Detokenizer(const TokenTable* table, bool skip_special = true)
      : table_(table), skip_special_(skip_special) {}

  // Appends to `out` the characters that token `id` completes. Ids without a token add nothing.
  void Push(std::int32_t id, std::string* out);

  // The reply ends, or goes on after something that is not text: an unfinished character becomes
  // U+FFFD.
  void Finish(std::string* out) { utf8_.Finish(out); }

  std::size_t pending_bytes() const { return utf8_.pending_bytes(); }

 private:
  const TokenTable* table_;
  Utf8Assembler utf8_;
  bool skip_special_;
  bool at_start_ = true;
};
static_assert(std::is_trivially_copyable_v<Detokenizer>, "no buffer that grows with the reply");

// The text of `ids` at once.
std::string Detokenize(const TokenTable& table, std::span<const std::int32_t> ids,
                       bool skip_special = true);

}  // namespace baleen::router
