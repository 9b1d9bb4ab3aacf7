#include "worker/model/format/json_fields.h"

#include <algorithm>

#include "fmt/format.h"
#include "worker/model/format/strict_json.h"

namespace baleen::worker {
namespace {

using Json = nlohmann::json;

bool InRange(const Json& value, std::int64_t min, std::int64_t max) {
  if (value.is_number_unsigned()) {
    const auto magnitude = value.get<std::uint64_t>();
    return max >= 0 && magnitude <= static_cast<std::uint64_t>(max) &&
           static_cast<std::int64_t>(magnitude) >= min;
  }
  return value.is_number_integer() && value.get<std::int64_t>() >= min &&
         value.get<std::int64_t>() <= max;
}

}  // namespace

std::uint32_t JsonFields::Integer(const char* name, IntegerSpec spec) {
  if (!object_.contains(name) && spec.fallback) {
    return static_cast<std::uint32_t>(*spec.fallback);
  }
  if (object_.contains(name) && InRange(at(name), spec.min, spec.max)) {
    return static_cast<std::uint32_t>(at(name).get<std::int64_t>());
  }
  Refuse(name, fmt::format("it must be an integer in [{}, {}]", spec.min, spec.max));
  return static_cast<std::uint32_t>(spec.min);
}

double JsonFields::Number(const char* name, NumberSpec spec) {
  if (!object_.contains(name) && spec.fallback) return *spec.fallback;
  if (object_.contains(name) && at(name).is_number()) {
    const double value = at(name).get<double>();
    if (value > spec.above && value <= spec.max) return value;
  }
  Refuse(name, fmt::format("it must be a number in ({}, {}]", spec.above, spec.max));
  return spec.max;
}

bool JsonFields::Boolean(const char* name, bool fallback) {
  if (!Has(name)) return fallback;
  if (at(name).is_boolean()) return at(name).get<bool>();
  Refuse(name, "it must be true or false");
  return fallback;
}

std::string JsonFields::String(const char* name, const std::string& fallback) {
  if (!Has(name)) return fallback;
  if (at(name).is_string()) return at(name).get<std::string>();
  Refuse(name, "it must be a string");
  return fallback;
}

void JsonFields::Expect(const char* name, const Json& expected, std::string_view why) {
  if (!Has(name) || at(name) == expected) return;
  Refuse(name, fmt::format("only {} is supported ({})", expected.dump(), why));
}

void JsonFields::Refuse(const char* name, std::string_view limit) {
  if (!status_.ok()) return;
  const std::string value =
      object_.contains(name) ? Shown(at(name).dump(-1, ' ', true, Json::error_handler_t::replace))
                             : "missing";
  status_ = absl::InvalidArgumentError(fmt::format("{}: {} is {}; {}", what_, name, value, limit));
}

}  // namespace baleen::worker
