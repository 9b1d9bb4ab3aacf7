// Typed, range-checked fields of one JSON object.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace baleen::worker {

struct IntegerSpec {
  std::optional<std::int64_t> fallback;  // for a missing field; nothing = required
  std::int64_t min = 1;
  std::int64_t max = 1 << 20;  // at most 2^32 - 1
};

struct NumberSpec {
  std::optional<double> fallback;
  double above = 0.0;  // exclusive
  double max = 1.0;    // inclusive
};

// After the first error every further answer is a harmless value inside its range, so that the
// reading code stays a plain list; status() tells at the end. Errors are kInvalidArgument and name
// the object, the field, its value and the limit. Borrows the object.
class JsonFields {
 public:
  // `what` names the object in errors, for example "config.json".
  JsonFields(std::string what, const nlohmann::json& object)
      : what_(std::move(what)), object_(object) {}

  const absl::Status& status() const { return status_; }

  // Null and missing are told apart: Has is false for both, IsNull true for an explicit null only.
  bool Has(const char* name) const { return object_.contains(name) && !object_.at(name).is_null(); }
  bool IsNull(const char* name) const {
    return object_.contains(name) && object_.at(name).is_null();
  }
  // Precondition: Has or IsNull.
  const nlohmann::json& at(const char* name) const { return object_.at(name); }

  std::uint32_t Integer(const char* name, IntegerSpec spec);
  double Number(const char* name, NumberSpec spec);
  // Missing and null give the fallback.
  bool Boolean(const char* name, bool fallback);
  std::string String(const char* name, const std::string& fallback);

  // The field, when it is there and not null, must equal `expected`; `why` says what depends on it.
  void Expect(const char* name, const nlohmann::json& expected, std::string_view why);

  // Records the error of a field, unless there is an earlier one.
  void Refuse(const char* name, std::string_view limit);

 private:
  const std::string what_;
  const nlohmann::json& object_;
  absl::Status status_;
};

}  // namespace baleen::worker
