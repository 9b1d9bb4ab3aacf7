// UTF-8: validation, and turning a stream of bytes into whole characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace baleen::router {

// Offset of the first byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7: no
// overlong forms, no surrogates, nothing above U+10FFFF); npos if all of `bytes` is well-formed.
std::size_t FindInvalidUtf8(std::string_view bytes);

inline bool IsValidUtf8(std::string_view bytes) {
  return FindInvalidUtf8(bytes) == std::string_view::npos;
}

// Turns bytes that arrive in pieces into well-formed text. Bytes that can not be part of a
// character become U+FFFD, one for each maximal part of a character, as WHATWG and Rust's
// from_utf8_lossy do: the text does not depend on where the pieces were cut. Keeps at most 3 bytes;
// takes time in proportion to the bytes.
class Utf8Assembler {
 public:
  static constexpr std::size_t kPendingBytesMax = 3;

  // Appends to `out` the characters that `bytes` completes.
  void Append(std::string_view bytes, std::string* out);

  // The stream ends: appends U+FFFD if it ends inside a character. Ready for the next stream then.
  void Finish(std::string* out);

  std::size_t pending_bytes() const { return pending_size_; }

 private:
  char pending_[kPendingBytesMax] = {};
  std::uint8_t pending_size_ = 0;
};

}  // namespace baleen::router
