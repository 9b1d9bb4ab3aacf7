// Lines that a person types (or a script pipes in).
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "tools/cli/terminal/interrupts.h"

namespace baleen::cli {

class LineInput {
 public:
  // A longer line is an error; one question is far smaller than a prompt may be.
  static constexpr std::size_t kLineBytesMax = 1u << 20;

  // `descriptor` is borrowed.
  explicit LineInput(int descriptor) : descriptor_(descriptor) {}

  // The next line without its newline; nullopt at the end of the input (Ctrl-D) and when the
  // session is over. RESOURCE_EXHAUSTED for a line that is too long. Waits as long as the person
  // thinks: `interrupts` ends the wait.
  absl::StatusOr<std::optional<std::string>> Next(const Interrupts& interrupts);

 private:
  std::optional<std::string> TakeLine();

  const int descriptor_;
  std::string buffer_;
  bool at_end_ = false;
};

// All of `descriptor` up to `bytes_max`; RESOURCE_EXHAUSTED beyond.
absl::StatusOr<std::string> ReadAll(int descriptor, std::size_t bytes_max);

}  // namespace baleen::cli
