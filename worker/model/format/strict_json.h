// JSON from outside, parsed strictly: size and depth are limited before and while it is read,
// duplicate keys, NaN and trailing bytes are errors.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace baleen::worker {

struct JsonLimits {
  std::size_t bytes_max = 0;
  int depth_max = 0;  // nested objects and arrays
};

// Errors are kInvalidArgument and begin with `what` (for example the file's name).
absl::StatusOr<nlohmann::json> ParseStrictJson(std::string_view what, std::string_view text,
                                               JsonLimits limits);

// Text from outside as an error message shows it: at most 80 bytes, nothing unprintable.
std::string Shown(std::string_view text);
// The same in quotes, for names.
std::string Quoted(std::string_view text);

}  // namespace baleen::worker
