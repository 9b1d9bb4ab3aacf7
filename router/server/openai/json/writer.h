// JSON written by hand, onto the end of a string: a stream's events are made one for every token of
// every client, and building a tree first would halve how many a core can make.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace baleen::router::json {

// With quotes; escapes what JSON asks for and leaves the rest as it is. Precondition: valid UTF-8,
// as everything that comes from a Document or from detokenizing is.
void AppendString(std::string_view text, std::string* out);

// A text of any bytes: each one that is not part of a character becomes U+FFFD.
void AppendBytesAsString(std::string_view bytes, std::string* out);

// Shortest text that reads back as the same number; what is not finite is written as the largest
// number with that sign, because JSON has no word for it.
void AppendNumber(double value, std::string* out);
void AppendNumber(float value, std::string* out);

void AppendInteger(std::int64_t value, std::string* out);
void AppendInteger(std::uint64_t value, std::string* out);

}  // namespace baleen::router::json
