// JSON text to a Document: one pass, nothing recursive, every limit checked before memory is taken.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

#include "proto/contract/status.h"
#include "router/server/openai/json/document.h"
#include "router/text/utf8.h"

namespace baleen::router::json {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void AppendCharacter(std::uint32_t code, std::string* out) {
  const auto add = [out](std::uint32_t byte) { *out += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6);
    add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  }
}

}  // namespace

class Reader {
 public:
  Reader(std::string_view text, const Limits& limits, Document& document)
      : text_(text), limits_(limits), document_(document) {}

  // False: failure() says why.
  bool Read();

  const std::string& failure() const { return failure_; }

 private:
  using Node = Document::Node;

  bool Fail(std::string why) {
    if (failure_.empty()) failure_ = std::move(why);
    return false;
  }
  bool NotJson() { return Fail(fmt::format("it is not JSON, at byte {}", at_)); }

  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Skip(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void SkipSpace() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
      ++at_;
    }
  }

  bool Add(Kind kind);
  // A value: all of it, or the opening of a container.
  bool ReadValue();
  // What may follow a value: closings, or the comma before the next one.
  bool ReadAfterValue();
  bool ReadKey();
  bool ReadWord(std::string_view word, Kind kind, bool boolean);
  bool ReadNumber();
  bool ReadStringInto(std::string& out);
  bool ReadEscape(std::string& out);
  bool ReadHex4(std::uint32_t& code);
  bool Open(Kind kind);
  bool Close();
  bool KeysAreUnique(std::uint32_t object);

  const std::string_view text_;
  const Limits limits_;
  Document& document_;
  std::size_t at_ = 0;
  std::vector<std::uint32_t> open_;  // indexes of the containers that we are in
  bool opened_ = false;              // the last value opened one
  std::uint32_t key_begin_ = 0;      // of the next value
  std::uint32_t key_size_ = 0;
  std::vector<std::string_view> keys_;
  std::string failure_;
};

bool Reader::Read() {
  do {
    if (!ReadValue() || !ReadAfterValue()) return false;
  } while (!open_.empty());
  return at_ == text_.size() || NotJson();
}

bool Reader::Add(Kind kind) {
  const std::size_t index = document_.nodes_.size();
  if (index >= limits_.values_max) {
    return Fail(fmt::format("it has more than {} values", limits_.values_max));
  }
  document_.nodes_.push_back({.kind = kind,
                              .end = static_cast<std::uint32_t>(index + 1),
                              .key_begin = key_begin_,
                              .key_size = key_size_});
  key_begin_ = key_size_ = 0;
  return true;
}

bool Reader::ReadValue() {
  SkipSpace();
  opened_ = false;
  switch (Peek()) {
    case '{':
      return Open(Kind::kObject);
    case '[':
      return Open(Kind::kArray);
    case '"': {
      if (!Add(Kind::kString)) return false;
      const std::size_t begin = document_.texts_.size();
      if (!ReadStringInto(document_.texts_)) return false;
      document_.nodes_.back().bits = std::uint64_t{begin} << 32 | (document_.texts_.size() - begin);
      return true;
    }
    case 't':
      return ReadWord("true", Kind::kBoolean, true);
    case 'f':
      return ReadWord("false", Kind::kBoolean, false);
    case 'n':
      return ReadWord("null", Kind::kNull, false);
    default:
      return ReadNumber();
  }
}

bool Reader::ReadAfterValue() {
  // Into a container that was just opened, unless it is empty.
  if (opened_) {
    SkipSpace();
    const bool object = document_.nodes_[open_.back()].kind == Kind::kObject;
    if (!Skip(object ? '}' : ']')) return !object || ReadKey();
    if (!Close()) return false;
  }
  while (true) {
    SkipSpace();
    if (open_.empty()) return true;
    const bool object = document_.nodes_[open_.back()].kind == Kind::kObject;
    if (Skip(',')) return !object || ReadKey();
    if (!Skip(object ? '}' : ']')) return NotJson();
    if (!Close()) return false;
  }
}

bool Reader::ReadKey() {
  SkipSpace();
  if (Peek() != '"') return NotJson();
  const std::size_t begin = document_.texts_.size();
  if (!ReadStringInto(document_.texts_)) return false;
  key_begin_ = static_cast<std::uint32_t>(begin);
  key_size_ = static_cast<std::uint32_t>(document_.texts_.size() - begin);
  SkipSpace();
  return Skip(':') || NotJson();
}

bool Reader::ReadWord(std::string_view word, Kind kind, bool boolean) {
  if (text_.substr(at_, word.size()) != word) return NotJson();
  at_ += word.size();
  if (!Add(kind)) return false;
  document_.nodes_.back().boolean = boolean;
  return true;
}

bool Reader::ReadNumber() {
  const std::size_t begin = at_;
  const auto skip_digits = [this] {
    const std::size_t first = at_;
    while (IsDigit(Peek())) ++at_;
    return at_ > first;
  };
  const bool negative = Skip('-');
  if (!Skip('0') && !skip_digits()) return NotJson();
  bool whole = true;
  if (Skip('.')) {
    whole = false;
    if (!skip_digits()) return NotJson();
  }
  if (Skip('e') || Skip('E')) {
    whole = false;
    if (!Skip('+')) Skip('-');
    if (!skip_digits()) return NotJson();
  }
  if (!Add(Kind::kNumber)) return false;
  Node& node = document_.nodes_.back();
  const char* const first = text_.data() + begin;
  const char* const last = text_.data() + at_;
  std::int64_t integer = 0;
  if (whole && negative && std::from_chars(first, last, integer).ec == std::errc()) {
    node.number = Document::Number::kSigned;
    node.bits = static_cast<std::uint64_t>(integer);
    return true;
  }
  if (whole && !negative && std::from_chars(first, last, node.bits).ec == std::errc()) {
    node.number = Document::Number::kUnsigned;
    return true;
  }
  double number = 0;
  if (std::from_chars(first, last, number).ec == std::errc::result_out_of_range) {
    number = std::strtod(std::string(first, last).c_str(), nullptr);  // 0 or infinite
  }
  if (!std::isfinite(number)) return Fail("a number is too large");
  node.number = Document::Number::kFloat;
  node.bits = std::bit_cast<std::uint64_t>(number);
  return true;
}

// The text is known to be UTF-8.
bool Reader::ReadStringInto(std::string& out) {
  ++at_;  // the quote
  while (true) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
           static_cast<unsigned char>(text_[at_]) >= 0x20) {
      ++at_;
    }
    out.append(text_, begin, at_ - begin);
    if (Skip('"')) return true;
    if (!Skip('\\')) return NotJson();
    if (!ReadEscape(out)) return false;
  }
}

bool Reader::ReadEscape(std::string& out) {
  constexpr std::string_view kShort = "\"\\/bfnrt";
  constexpr std::string_view kMeaning = "\"\\/\b\f\n\r\t";
  if (at_ >= text_.size()) return NotJson();
  const char c = text_[at_++];
  if (const std::size_t found = kShort.find(c); found != std::string_view::npos) {
    out += kMeaning[found];
    return true;
  }
  std::uint32_t code = 0;
  if (c != 'u' || !ReadHex4(code)) return NotJson();
  if (code >= 0xDC00 && code <= 0xDFFF) return NotJson();  // the second half of a pair
  if (code >= 0xD800 && code <= 0xDBFF) {
    std::uint32_t low = 0;
    if (!Skip('\\') || !Skip('u') || !ReadHex4(low) || low < 0xDC00 || low > 0xDFFF) {
      return NotJson();
    }
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  }
  AppendCharacter(code, &out);
  return true;
}

bool Reader::ReadHex4(std::uint32_t& code) {
  if (text_.size() - at_ < 4) return false;
  for (int i = 0; i < 4; ++i) {
    const int digit = HexValue(text_[at_++]);
    if (digit < 0) return false;
    code = code << 4 | static_cast<std::uint32_t>(digit);
  }
  return true;
}

bool Reader::Open(Kind kind) {
  if (open_.size() >= limits_.depth_max) {
    return Fail(fmt::format("it is nested deeper than {}", limits_.depth_max));
  }
  if (!Add(kind)) return false;
  ++at_;
  open_.push_back(static_cast<std::uint32_t>(document_.nodes_.size() - 1));
  opened_ = true;
  return true;
}

bool Reader::Close() {
  Node& node = document_.nodes_[open_.back()];
  node.end = static_cast<std::uint32_t>(document_.nodes_.size());
  const bool unique = node.kind == Kind::kArray || KeysAreUnique(open_.back());
  open_.pop_back();
  return unique || Fail("an object has the same key twice");
}

bool Reader::KeysAreUnique(std::uint32_t object) {
  keys_.clear();
  for (std::size_t i = object + 1; i < document_.nodes_.size(); i = document_.nodes_[i].end) {
    const Node& node = document_.nodes_[i];
    keys_.push_back(document_.TextAt(node.key_begin, node.key_size));
  }
  std::ranges::sort(keys_);
  return std::ranges::adjacent_find(keys_) == keys_.end();
}

absl::StatusOr<Document> Document::Parse(std::string_view text, const Limits& limits) {
  using contract::MakeStatus;
  using contract::Reason;
  if (text.size() >= std::numeric_limits<std::uint32_t>::max()) {
    return MakeStatus(Reason::kInvalidRequest, "body: it is too large");
  }
  if (const std::size_t at = FindInvalidUtf8(text); at != std::string_view::npos) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("body: it is not valid UTF-8, at byte {}", at));
  }
  Document document;
  // An array of ids has a value for every few bytes. What is not used is never touched.
  document.nodes_.reserve(std::min(limits.values_max, text.size() / 4 + 16));
  Reader reader(text, limits, document);
  if (!reader.Read()) {
    return MakeStatus(Reason::kInvalidRequest, fmt::format("body: {}", reader.failure()));
  }
  return document;
}

}  // namespace baleen::router::json
