// A short table of names and values, aligned.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tools/cli/terminal/style.h"

namespace baleen::cli {

using TableRows = std::vector<std::pair<std::string, std::string>>;

// One line a row: two spaces, the name dimmed and padded to the longest, the value. Widths count
// UTF-8 characters.
std::string RenderTable(const TableRows& rows, const Style& style);

// "0 B", "17.3 kB", "9.8 MB": decimal units, three digits.
std::string FormatBytes(std::uint64_t bytes);

// "831 us", "12.4 ms", "3.07 s".
std::string FormatMicroseconds(std::uint64_t us);

}  // namespace baleen::cli
