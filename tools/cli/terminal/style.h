// How text looks on a terminal, and nothing but the text elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baleen::cli {

enum class Look : std::uint8_t {
  kPlain,
  kDim,
  kBold,
  kRed,
  kGreen,
  kYellow,
  kBlue,
  kMagenta,
  kCyan
};

// Whether text on this descriptor is coloured: it is a terminal that knows colours, and NO_COLOR is
// not set (no-color.org).
bool ColoursOn(int descriptor);

class Style {
 public:
  explicit Style(bool colours) : colours_(colours) {}

  bool colours() const { return colours_; }
  // `text` in that look; unchanged without colours.
  std::string Paint(Look look, std::string_view text) const;

 private:
  bool colours_;
};

// A colour for each process of a cluster: stable, and different for neighbours.
Look LookOf(std::string_view process);

// `text` (UTF-8) without control characters other than newline and tab: what a model or a client
// wrote must not move the cursor, set the title or paste into the terminal. The C1 controls (U+0080
// to U+009F) go too.
std::string WithoutControls(std::string_view text);

// Writes all of `text` to a descriptor at once, so that it is seen now. False when it can not be
// written.
bool WriteAll(int descriptor, std::string_view text);

// OK, or why a WriteAll to stdout failed: "standard output: No space left on device". It stays: a
// command whose output is lost has failed, whatever else it did. Any thread.
absl::Status StandardOutputStatus();

}  // namespace baleen::cli
