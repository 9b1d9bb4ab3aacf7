#include "router/text/utf8.h"

#include <algorithm>
#include <cstring>

namespace baleen::router {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Form : std::uint8_t { kWhole, kBroken, kUnfinished };

// What stands at the start of a string: a whole character; bytes that begin one, which the next
// byte breaks; or all of the string, which begins one.
struct Piece {
  Form form;
  std::size_t size;
};

constexpr bool InRange(std::uint8_t byte, std::uint8_t low, std::uint8_t high) {
  return low <= byte && byte <= high;
}

// Bytes of the character that `lead` begins; 0 if it begins none.
constexpr std::size_t SizeFromLead(std::uint8_t lead) {
  if (lead < 0x80) return 1;
  if (InRange(lead, 0xC2, 0xDF)) return 2;
  if (InRange(lead, 0xE0, 0xEF)) return 3;
  if (InRange(lead, 0xF0, 0xF4)) return 4;
  return 0;
}

// The second byte excludes overlong forms, surrogates, and what is above U+10FFFF.
constexpr bool IsSecond(std::uint8_t lead, std::uint8_t second) {
  switch (lead) {
    case 0xE0:
      return InRange(second, 0xA0, 0xBF);
    case 0xED:
      return InRange(second, 0x80, 0x9F);
    case 0xF0:
      return InRange(second, 0x90, 0xBF);
    case 0xF4:
      return InRange(second, 0x80, 0x8F);
    default:
      return InRange(second, 0x80, 0xBF);
  }
}

// `bytes` is not empty.
Piece FirstPiece(std::string_view bytes) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(bytes[i]); };
  const std::size_t size = SizeFromLead(byte(0));
  if (size == 0) return {Form::kBroken, 1};
  for (std::size_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Form::kUnfinished, i};
    const bool fits = i == 1 ? IsSecond(byte(0), byte(1)) : InRange(byte(i), 0x80, 0xBF);
    if (!fits) return {Form::kBroken, i};
  }
  return {Form::kWhole, size};
}

}  // namespace

std::size_t FindInvalidUtf8(std::string_view bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Piece piece = FirstPiece(bytes.substr(at));
    if (piece.form != Form::kWhole) return at;
    at += piece.size;
  }
  return std::string_view::npos;
}

void Utf8Assembler::Append(std::string_view bytes, std::string* out) {
  // A pending character takes one byte at a time, at most three.
  while (pending_size_ > 0 && !bytes.empty()) {
    char joined[kPendingBytesMax + 1];
    std::memcpy(joined, pending_, pending_size_);
    joined[pending_size_] = bytes[0];
    const std::size_t joined_size = pending_size_ + std::size_t{1};
    const Piece piece = FirstPiece({joined, joined_size});
    if (piece.form == Form::kBroken) {  // The byte does not belong to it, and begins anew.
      out->append(kReplacement);
      pending_size_ = 0;
      break;
    }
    bytes.remove_prefix(1);
    if (piece.form == Form::kWhole) {
      out->append(joined, joined_size);
      pending_size_ = 0;
    } else {
      pending_[pending_size_++] = joined[joined_size - 1];
    }
  }
  while (!bytes.empty()) {
    const std::size_t valid = std::min(FindInvalidUtf8(bytes), bytes.size());
    out->append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return;
    const Piece piece = FirstPiece(bytes);
    if (piece.form == Form::kUnfinished) {
      std::memcpy(pending_, bytes.data(), bytes.size());
      pending_size_ = static_cast<std::uint8_t>(bytes.size());
      return;
    }
    out->append(kReplacement);
    bytes.remove_prefix(piece.size);
  }
}

void Utf8Assembler::Finish(std::string* out) {
  if (pending_size_ > 0) out->append(kReplacement);
  pending_size_ = 0;
}

}  // namespace baleen::router
