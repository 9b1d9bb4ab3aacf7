// The parts of a prompt, encoded apart: in pieces, on several threads, and those known from before
// not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/text/encoding/prompt_cache.h"

namespace baleen::router {

// Calls body(0), .., body(count - 1), each once, in any threads and order; returns after the last.
using ParallelFor =
    std::function<void(std::size_t count, const std::function<void(std::size_t)>& body)>;

// What makes encoding faster, and never changes its result. Both may be null; borrowed for a call.
struct EncodeHelp {
  const ParallelFor* parallel = nullptr;  // long texts are encoded in pieces
  PromptCache* cache = nullptr;           // of this tokenizer
};

// About a millisecond of work: handing it to a thread costs a hundredth of that.
inline constexpr std::size_t kPieceBytesMin = std::size_t{8} << 10;

// What is encoded for itself: a control token, or text between two. Borrows its text.
struct Part {
  std::string_view text;
  std::vector<std::int32_t> ids;
  bool known = false;  // `ids` are those of `text`
};

// Both are called from any thread.
struct PieceEncoder {
  // Bytes of a piece at the start of a text: at least 1, at most all. Pieces have the ids of the
  // whole.
  std::function<std::size_t(std::string_view)> piece_end;
  std::function<absl::StatusOr<std::vector<std::int32_t>>(std::string_view)> encode;
};

// Encodes the parts that are not known, and remembers them. The first error of a piece.
absl::Status EncodeParts(const PieceEncoder& encoder, const EncodeHelp& help,
                         std::span<Part> parts);

// The ids of all parts, in order.
std::vector<std::int32_t> Joined(std::span<const Part> parts);

}  // namespace baleen::router
