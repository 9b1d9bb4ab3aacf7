#include "tools/cli/terminal/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace baleen::cli {
namespace {

std::size_t Characters(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

// Three digits: 1.23, 12.3, 123.
std::string ThreeDigits(double value) {
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}", value, decimals);
}

}  // namespace

std::string RenderTable(const TableRows& rows, const Style& style) {
  std::size_t widest = 0;
  for (const auto& [name, value] : rows) widest = std::max(widest, Characters(name));
  std::string text;
  for (const auto& [name, value] : rows) {
    const std::string padding(widest - Characters(name), ' ');
    text += fmt::format("  {}{}  {}\n", style.Paint(Look::kDim, name), padding, value);
  }
  return text;
}

std::string RenderColumns(const TableColumns& rows, const Style& style) {
  std::vector<std::size_t> widest;
  for (const std::vector<std::string>& row : rows) {
    widest.resize(std::max(widest.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      widest[i] = std::max(widest[i], Characters(row[i]));
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text.append(2 + widest[i] - Characters(row[i]), ' ');
      text += &row == &rows.front() ? style.Paint(Look::kDim, row[i]) : row[i];
    }
    text += '\n';
  }
  return text;
}

std::string FormatBytes(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"kB", "MB", "GB", "TB", "PB"};
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1000;
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{} {}", ThreeDigits(value), kUnits[unit]);
}

std::string FormatMicroseconds(std::uint64_t us) {
  if (us < 1000) return fmt::format("{} us", us);
  const double ms = static_cast<double>(us) / 1000;
  if (ms < 999.5) return fmt::format("{} ms", ThreeDigits(ms));
  return fmt::format("{} s", ThreeDigits(ms / 1000));
}

}  // namespace baleen::cli
