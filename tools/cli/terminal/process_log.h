// Log lines of several processes on one terminal: each with the name of its process in front, in
// its colour.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "tools/cli/terminal/style.h"

namespace baleen::cli {

// "prefill-0.0 | line\n", the name padded to `width` characters; control characters of the line
// dropped.
std::string FormatLogLine(std::string_view process, std::string_view line, std::size_t width,
                          const Style& style);

}  // namespace baleen::cli
