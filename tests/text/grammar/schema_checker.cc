// JSON Schema as its specification reads, for small values: the judge of replies made by chance.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <regex>

#include "fmt/format.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

using Json = nlohmann::ordered_json;

bool SameValue(const Json& a, const Json& b) {
  if (a.is_number() && b.is_number()) return a.get<double>() == b.get<double>();
  return nlohmann::json(a) == nlohmann::json(b);  // members in any order
}

std::size_t Characters(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

class Checker {
 public:
  explicit Checker(const Json& root) : root_(root) {}

  std::string Check(const Json& value, const Json& schema) const {
    if (schema.is_boolean()) return schema.get<bool>() ? "" : "nothing is allowed here";
    for (const auto& [key, wanted] : schema.items()) {
      std::string wrong = CheckKeyword(value, key, wanted, schema);
      if (!wrong.empty()) return wrong;
    }
    return "";
  }

 private:
  std::string CheckKeyword(const Json& value, const std::string& key, const Json& wanted,
                           const Json& schema) const {
    if (key == "$ref") {
      const std::string pointer =
          std::regex_replace(wanted.get<std::string>().substr(1), std::regex("%25"), "%");
      return Check(value, root_.at(Json::json_pointer(pointer)));
    }
    if (key == "type") return CheckType(value, wanted);
    if (key == "const") return SameValue(value, wanted) ? "" : "not the const";
    if (key == "enum") {
      const auto same = [&](const Json& one) { return SameValue(value, one); };
      return std::any_of(wanted.begin(), wanted.end(), same) ? "" : "not of the enum";
    }
    if (key == "anyOf") return Matching(value, wanted) >= 1 ? "" : "none of anyOf";
    if (key == "oneOf") return Matching(value, wanted) == 1 ? "" : "not one of oneOf";
    if (key == "allOf") return Matching(value, wanted) == wanted.size() ? "" : "not all of allOf";
    if (value.is_object()) return CheckObject(value, key, wanted, schema);
    if (value.is_array()) return CheckArray(value, key, wanted, schema);
    if (value.is_string()) return CheckString(value.get<std::string>(), key, wanted);
    if (value.is_number()) return CheckNumber(value.get<double>(), key, wanted);
    return "";
  }

  static bool IsOf(const Json& value, const std::string& type) {
    if (type == "null") return value.is_null();
    if (type == "boolean") return value.is_boolean();
    if (type == "string") return value.is_string();
    if (type == "array") return value.is_array();
    if (type == "object") return value.is_object();
    if (type == "number") return value.is_number();
    return value.is_number() && std::floor(value.get<double>()) == value.get<double>();
  }

  static std::string CheckType(const Json& value, const Json& wanted) {
    const Json types = wanted.is_array() ? wanted : Json::array({wanted});
    const auto matches = [&](const Json& type) { return IsOf(value, type.get<std::string>()); };
    return std::any_of(types.begin(), types.end(), matches) ? "" : "wrong type";
  }

  std::size_t Matching(const Json& value, const Json& schemas) const {
    const auto matches = [&](const Json& schema) { return Check(value, schema).empty(); };
    return static_cast<std::size_t>(std::count_if(schemas.begin(), schemas.end(), matches));
  }

  std::string CheckObject(const Json& value, const std::string& key, const Json& wanted,
                          const Json& schema) const {
    if (key == "minProperties" && value.size() < wanted.get<std::size_t>())
      return "too few members";
    if (key == "maxProperties" && value.size() > wanted.get<std::size_t>())
      return "too many members";
    if (key == "required") {
      for (const Json& name : wanted) {
        if (!value.contains(name.get<std::string>())) return "lacks " + name.get<std::string>();
      }
    }
    for (const auto& [name, member] : value.items()) {
      const bool named = schema.contains("properties") && schema["properties"].contains(name);
      bool patterned = false;
      if (schema.contains("patternProperties")) {
        for (const auto& [pattern, of_pattern] : schema["patternProperties"].items()) {
          if (!std::regex_search(name, std::regex(pattern))) continue;
          patterned = true;
          if (key != "patternProperties") continue;
          if (std::string wrong = Check(member, of_pattern); !wrong.empty()) return wrong;
        }
      }
      std::string wrong;
      if (key == "properties" && named) wrong = Check(member, wanted.at(name));
      if (key == "additionalProperties" && !named && !patterned) wrong = Check(member, wanted);
      if (!wrong.empty()) return name + ": " + wrong;
    }
    return "";
  }

  std::string CheckArray(const Json& value, const std::string& key, const Json& wanted,
                         const Json& schema) const {
    if (key == "minItems" && value.size() < wanted.get<std::size_t>()) return "too few items";
    if (key == "maxItems" && value.size() > wanted.get<std::size_t>()) return "too many items";
    const std::size_t prefix =
        schema.contains("prefixItems") ? schema["prefixItems"].size() : std::size_t{0};
    for (std::size_t i = 0; i < value.size(); ++i) {
      std::string wrong;
      if (key == "prefixItems" && i < prefix) wrong = Check(value[i], wanted[i]);
      if (key == "items" && i >= prefix) wrong = Check(value[i], wanted);
      if (!wrong.empty()) return fmt::format("[{}]: {}", i, wrong);
    }
    return "";
  }

  static std::string CheckString(const std::string& value, const std::string& key,
                                 const Json& wanted) {
    if (key == "minLength" && Characters(value) < wanted.get<std::size_t>()) return "too short";
    if (key == "maxLength" && Characters(value) > wanted.get<std::size_t>()) return "too long";
    if (key == "pattern" &&
        !std::regex_search(value, std::regex(wanted.get<std::string>(), std::regex::ECMAScript))) {
      return "not of the pattern";
    }
    if (key == "format") return CheckFormat(value, wanted.get<std::string>());
    return "";
  }

  static std::string CheckFormat(const std::string& value, const std::string& format) {
    const std::string time = R"(\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d))";
    const std::string date = R"(\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01]))";
    const std::string byte = R"((25[0-5]|2[0-4]\d|1?\d?\d))";
    std::string pattern = ".*";
    if (format == "date") pattern = date;
    if (format == "time") pattern = time;
    if (format == "date-time") pattern = date + "[tT]" + time;
    if (format == "uuid") pattern = "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}";
    if (format == "ipv4") pattern = "(" + byte + R"(\.){3})" + byte;
    if (format == "email") pattern = R"([^@\s]+@[^@\s]+)";
    return std::regex_match(value, std::regex(pattern)) ? "" : "no " + format;
  }

  static std::string CheckNumber(double value, const std::string& key, const Json& wanted) {
    if (!wanted.is_number()) return "";
    const auto bound = wanted.get<double>();
    if (key == "minimum" && value < bound) return "too small";
    if (key == "maximum" && value > bound) return "too large";
    if (key == "exclusiveMinimum" && value <= bound) return "too small";
    if (key == "exclusiveMaximum" && value >= bound) return "too large";
    if (key == "multipleOf") {
      const double ratio = value / bound;
      if (std::abs(ratio) < 1e12 && std::abs(ratio - std::round(ratio)) > 1e-6)
        return "no multiple";
    }
    return "";
  }

  const Json& root_;
};

}  // namespace

std::string WhatIsWrong(const Json& value, const Json& schema) {
  return Checker(schema).Check(value, schema);
}

}  // namespace baleen::text
