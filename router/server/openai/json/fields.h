// Typed reading of JSON values, with the path of each in what is said of it.
//
// Every error is kInvalidRequest and names the field, its limits and, of numbers, what it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/server/openai/json/document.h"

namespace baleen::router::json {

// Where a value is: a list on the stack, written out only for an error.
class Path {
 public:
  Path() = default;  // the body
  Path(const Path& parent, std::string_view key) : parent_(&parent), key_(key) {}
  Path(const Path& parent, std::size_t index) : parent_(&parent), index_(index) {}

  // "messages[3].content"; "body" for the body itself.
  std::string ToString() const;

 private:
  const Path* parent_ = nullptr;
  std::string_view key_;
  std::size_t index_ = 0;
};

// "path: why".
absl::Status Invalid(const Path& path, std::string_view why);
// "path: it is a number, not a string".
absl::Status WrongKind(const Path& path, const Value& value, std::string_view expected);

absl::StatusOr<std::string> ReadString(const Value& value, const Path& path);
absl::StatusOr<bool> ReadBoolean(const Value& value, const Path& path);
// Finite as a float; what is too small for one is 0.
absl::StatusOr<float> ReadFloat(const Value& value, const Path& path);
absl::StatusOr<std::int32_t> ReadInt32(const Value& value, const Path& path);
absl::StatusOr<std::uint32_t> ReadUint32(const Value& value, const Path& path);

// What to do with one member of an object. `read` null: it changes nothing that we do, and is
// skipped.
template <typename Target>
struct FieldRow {
  std::string_view name;
  absl::Status (*read)(const Value& value, const Path& path, Target& target);
};

// A member whose name is not in the table.
absl::Status UnknownField(const Value& member, const Path& parent);

template <typename Target>
const FieldRow<Target>* FindRow(std::span<const FieldRow<Target>> table, std::string_view name) {
  for (const FieldRow<Target>& row : table) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

// The members of an object, each read by its row of a table; those that are null are as if they
// were not there. `more` is the table of what several kinds of body have in common: its targets are
// parts of this one.
template <typename Target, typename Part>
absl::Status ReadObject(const Value& value, const Path& path,
                        std::span<const FieldRow<Target>> table,
                        std::span<const FieldRow<Part>> more, Target& target) {
  if (!value.is(Kind::kObject)) return WrongKind(path, value, "an object");
  for (const Value member : value) {
    const Path at(path, member.key());
    absl::Status status;
    if (const auto* row = FindRow(table, member.key())) {
      if (row->read != nullptr && !member.is(Kind::kNull)) status = row->read(member, at, target);
    } else if (const auto* common = FindRow(more, member.key())) {
      if (common->read != nullptr && !member.is(Kind::kNull)) {
        status = common->read(member, at, target);
      }
    } else {
      status = UnknownField(member, path);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

template <typename Target, std::size_t kRows>
absl::Status ReadObject(const Value& value, const Path& path,
                        const FieldRow<Target> (&table)[kRows], Target& target) {
  return ReadObject(value, path, std::span<const FieldRow<Target>>(table),
                    std::span<const FieldRow<Target>>(), target);
}

}  // namespace baleen::router::json
