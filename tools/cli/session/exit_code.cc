#include "tools/cli/session/exit_code.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "tools/cli/terminal/style.h"

namespace baleen::cli {
namespace {

// A message is one line, whatever a server put into it.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return WithoutControls(text);
}

}  // namespace

int ExitWith(const absl::Status& status) {
  if (status.ok()) return kExitGood;
  if (!StandardOutputStatus().ok()) return kExitFailed;
  WriteAll(STDERR_FILENO, fmt::format("error: {}: {}\n", absl::StatusCodeToString(status.code()),
                                      OneLine(std::string(status.message()))));
  return kExitFailed;
}

int ExitWithMessage(const absl::Status& status) {
  if (status.ok()) return kExitGood;
  if (StandardOutputStatus().ok()) ExitWithUsage(status);
  return kExitFailed;
}

int ExitWithUsage(const absl::Status& status) {
  WriteAll(STDERR_FILENO, fmt::format("error: {}\n", OneLine(std::string(status.message()))));
  return kExitUsage;
}

int Conclude(int exit_code) {
  const absl::Status output = StandardOutputStatus();
  if (output.ok()) return exit_code;
  ExitWithUsage(output);
  return kExitFailed;
}

}  // namespace baleen::cli
