// Short tables, aligned: names and values, or columns of figures.
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

// Rows of cells, each row as long as the first, which names the columns.
using TableColumns = std::vector<std::vector<std::string>>;

// One line a row: two spaces before each cell, cells right-aligned to the widest of their column;
// the names dimmed. Widths count UTF-8 characters.
std::string RenderColumns(const TableColumns& rows, const Style& style);

// "0 B", "17.3 kB", "9.8 MB": decimal units, three digits.
std::string FormatBytes(std::uint64_t bytes);

// "831 us", "12.4 ms", "3.07 s".
std::string FormatMicroseconds(std::uint64_t us);

}  // namespace baleen::cli
