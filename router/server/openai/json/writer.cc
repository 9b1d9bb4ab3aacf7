#include "router/server/openai/json/writer.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <iterator>
#include <limits>

#include "router/text/utf8.h"

namespace baleen::router::json {
namespace {

constexpr bool NeedsEscape(unsigned char byte) {
  return byte < 0x20 || byte == '"' || byte == '\\' || byte == 0x7f;
}

constexpr std::array<bool, 256> kNeedsEscape = [] {
  std::array<bool, 256> table{};
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = NeedsEscape(static_cast<unsigned char>(i));
  }
  return table;
}();

void AppendEscaped(unsigned char byte, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      *out += "\\\"";
      return;
    case '\\':
      *out += "\\\\";
      return;
    case '\n':
      *out += "\\n";
      return;
    case '\r':
      *out += "\\r";
      return;
    case '\t':
      *out += "\\t";
      return;
    default:
      *out += "\\u00";
      *out += kHex[byte >> 4];
      *out += kHex[byte & 15];
  }
}

template <typename Float>
void AppendFinite(Float value, std::string* out) {
  if (!std::isfinite(value)) {
    value = std::copysign(std::numeric_limits<Float>::max(), value);
  }
  fmt::format_to(std::back_inserter(*out), "{}", value);
}

}  // namespace

void AppendString(std::string_view text, std::string* out) {
  *out += '"';
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (!kNeedsEscape[byte]) [[likely]]
      continue;
    out->append(text, begin, i - begin);
    AppendEscaped(byte, out);
    begin = i + 1;
  }
  out->append(text, begin, text.size() - begin);
  *out += '"';
}

void AppendBytesAsString(std::string_view bytes, std::string* out) {
  if (IsValidUtf8(bytes)) {
    AppendString(bytes, out);
    return;
  }
  std::string text;
  Utf8Assembler assembler;
  assembler.Append(bytes, &text);
  assembler.Finish(&text);
  AppendString(text, out);
}

void AppendNumber(double value, std::string* out) { AppendFinite(value, out); }
void AppendNumber(float value, std::string* out) { AppendFinite(value, out); }

void AppendInteger(std::int64_t value, std::string* out) {
  const fmt::format_int text(value);
  out->append(text.data(), text.size());
}

void AppendInteger(std::uint64_t value, std::string* out) {
  const fmt::format_int text(value);
  out->append(text.data(), text.size());
}

}  // namespace baleen::router::json
