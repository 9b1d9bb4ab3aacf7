#include "router/text/encoding/parts.h"

#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::router {
namespace {

using Ids = std::vector<std::int32_t>;

struct Piece {
  std::size_t part;
  std::string_view text;
  absl::StatusOr<Ids> ids = Ids();
};

// Without threads to share the work, a part is one piece.
std::vector<Piece> PiecesOf(const PieceEncoder& encoder, bool cuts, std::span<const Part> parts) {
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::string_view rest = parts[i].known ? std::string_view() : parts[i].text;
    while (!rest.empty()) {
      const std::size_t size =
          cuts && rest.size() > 2 * kPieceBytesMin ? encoder.piece_end(rest) : rest.size();
      pieces.push_back({.part = i, .text = rest.substr(0, size)});
      rest.remove_prefix(size);
    }
  }
  return pieces;
}

}  // namespace

absl::Status EncodeParts(const PieceEncoder& encoder, const EncodeHelp& help,
                         std::span<Part> parts) {
  std::vector<Piece> pieces = PiecesOf(encoder, help.parallel != nullptr, parts);
  const auto encode = [&](std::size_t i) { pieces[i].ids = encoder.encode(pieces[i].text); };
  std::size_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.text.size();
  if (help.parallel != nullptr && bytes > 2 * kPieceBytesMin && pieces.size() > 1) {
    (*help.parallel)(pieces.size(), encode);
  } else {
    for (std::size_t i = 0; i < pieces.size(); ++i) encode(i);
  }
  for (Piece& piece : pieces) {
    BALEEN_RETURN_IF_ERROR(piece.ids.status());
    Ids& ids = parts[piece.part].ids;
    if (ids.empty()) {
      ids = *std::move(piece.ids);
    } else {
      ids.insert(ids.end(), piece.ids->begin(), piece.ids->end());
    }
  }
  for (Part& part : parts) {
    if (!part.known && help.cache != nullptr) help.cache->Put(part.text, part.ids);
    part.known = true;
  }
  return absl::OkStatus();
}

std::vector<std::int32_t> Joined(std::span<const Part> parts) {
  std::size_t size = 0;
  for (const Part& part : parts) size += part.ids.size();
  Ids ids;
  ids.reserve(size);
  for (const Part& part : parts) ids.insert(ids.end(), part.ids.begin(), part.ids.end());
  return ids;
}

}  // namespace baleen::router
