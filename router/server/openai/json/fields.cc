#include "router/server/openai/json/fields.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "proto/contract/status.h"

namespace baleen::router::json {
namespace {

// A client's own field name comes back in the error; it is cut at a character.
constexpr std::size_t kNameBytesMax = 64;

std::string Shortened(std::string_view name) {
  if (name.size() <= kNameBytesMax) return std::string(name);
  std::size_t size = kNameBytesMax;
  while (size > 0 && (static_cast<unsigned char>(name[size]) & 0xC0) == 0x80) --size;
  return std::string(name.substr(0, size)) + "...";
}

template <typename Integer>
absl::StatusOr<Integer> ReadInteger(const Value& value, const Path& path) {
  if (!value.is(Kind::kNumber)) return WrongKind(path, value, "an integer");
  const auto integer = value.integer();
  if (integer && *integer >= std::numeric_limits<Integer>::min() &&
      *integer <= std::numeric_limits<Integer>::max()) {
    return static_cast<Integer>(*integer);
  }
  return Invalid(
      path, fmt::format("{} is not an integer from {} to {}", value.number(),
                        std::numeric_limits<Integer>::min(), std::numeric_limits<Integer>::max()));
}

}  // namespace

std::string Path::ToString() const {
  if (parent_ == nullptr) return "body";
  const bool at_top = parent_->parent_ == nullptr;
  if (key_.data() == nullptr) return fmt::format("{}[{}]", parent_->ToString(), index_);
  if (at_top) return Shortened(key_);
  return fmt::format("{}.{}", parent_->ToString(), Shortened(key_));
}

absl::Status Invalid(const Path& path, std::string_view why) {
  return contract::MakeStatus(contract::Reason::kInvalidRequest,
                              fmt::format("{}: {}", path.ToString(), why));
}

absl::Status WrongKind(const Path& path, const Value& value, std::string_view expected) {
  return Invalid(path, fmt::format("it is {}, not {}", NameOf(value.kind()), expected));
}

absl::Status UnknownField(const Value& member, const Path& parent) {
  return Invalid(Path(parent, member.key()), "there is no such field");
}

absl::StatusOr<std::string> ReadString(const Value& value, const Path& path) {
  if (!value.is(Kind::kString)) return WrongKind(path, value, "a string");
  return std::string(value.text());
}

absl::StatusOr<bool> ReadBoolean(const Value& value, const Path& path) {
  if (!value.is(Kind::kBoolean)) return WrongKind(path, value, "a boolean");
  return value.boolean();
}

absl::StatusOr<float> ReadFloat(const Value& value, const Path& path) {
  if (!value.is(Kind::kNumber)) return WrongKind(path, value, "a number");
  const double number = value.number();
  if (std::fabs(number) > double{std::numeric_limits<float>::max()}) {
    return Invalid(path, fmt::format("{} is too large", number));
  }
  return static_cast<float>(number);
}

absl::StatusOr<std::int32_t> ReadInt32(const Value& value, const Path& path) {
  return ReadInteger<std::int32_t>(value, path);
}

absl::StatusOr<std::uint32_t> ReadUint32(const Value& value, const Path& path) {
  return ReadInteger<std::uint32_t>(value, path);
}

}  // namespace baleen::router::json
