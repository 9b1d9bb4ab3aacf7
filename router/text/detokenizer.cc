#include "router/text/detokenizer.h"

#include <cstddef>

namespace baleen::router {
namespace {

constexpr std::uint8_t kExists = 1;
constexpr std::uint8_t kSpecial = 2;
constexpr std::uint8_t kControl = 4;

}  // namespace

void TokenTable::Add(const Entry& entry) {
  bytes_.append(entry.bytes);
  offsets_.push_back(static_cast<std::uint32_t>(bytes_.size()));
  flags_.push_back(static_cast<std::uint8_t>((entry.exists ? kExists : 0) |
                                             (entry.special ? kSpecial : 0) |
                                             (entry.control ? kControl : 0)));
}

TokenTable::Entry TokenTable::At(std::int32_t id) const {
  if (id < 0 || id >= id_end()) return {};
  const auto index = static_cast<std::size_t>(id);
  const std::uint32_t begin = offsets_[index];
  return {.bytes = std::string_view(bytes_).substr(begin, offsets_[index + 1] - begin),
          .exists = (flags_[index] & kExists) != 0,
          .special = (flags_[index] & kSpecial) != 0,
          .control = (flags_[index] & kControl) != 0};
}

void Detokenizer::Push(std::int32_t id, std::string* out) {
  const TokenTable::Entry token = table_->At(id);
  if (token.special && skip_special_) return;
  std::string_view bytes = token.bytes;
  if (at_start_ && !bytes.empty()) {
    at_start_ = false;
    if (table_->strips_leading_space() && bytes.front() == ' ') bytes.remove_prefix(1);
  }
  utf8_.Append(bytes, out);
}

std::string Detokenize(const TokenTable& table, std::span<const std::int32_t> ids,
                       bool skip_special) {
  Detokenizer detokenizer(&table, skip_special);
  std::string text;
  for (const std::int32_t id : ids) detokenizer.Push(id, &text);
  detokenizer.Finish(&text);
  return text;
}

}  // namespace baleen::router
