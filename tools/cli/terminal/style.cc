#include "tools/cli/terminal/style.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "observability/process/standard_streams.h"

namespace baleen::cli {
namespace {

// SGR parameters, in the order of Look.
constexpr std::array<std::string_view, 9> kCodes = {"0",  "2",  "1",  "31", "32",
                                                    "33", "34", "35", "36"};
constexpr std::array kProcessLooks = {Look::kCyan, Look::kMagenta, Look::kYellow, Look::kBlue,
                                      Look::kGreen};

std::atomic<int> standard_output_error = 0;  // errno of the first failure

}  // namespace

bool ColoursOn(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  if (no_color != nullptr && *no_color != '\0') return false;
  if (terminal == nullptr || std::string_view(terminal) == "dumb") return false;
  return ::isatty(descriptor) == 1;
}

std::string Style::Paint(Look look, std::string_view text) const {
  if (!colours_ || look == Look::kPlain || text.empty()) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<std::size_t>(look)], text);
}

Look LookOf(std::string_view process) {
  if (process == "up") return Look::kBold;
  // The sum of the bytes: the same name has the same colour in every run, and groups 0, 1, 2 of a
  // role differ.
  std::uint32_t sum = 0;
  for (const char c : process) sum += static_cast<unsigned char>(c);
  return kProcessLooks[sum % kProcessLooks.size()];
}

std::string WithoutControls(std::string_view text) {
  std::string kept;
  kept.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (byte == 0xc2 && next >= 0x80 && next <= 0x9f) {
      ++i;  // C1, two bytes in UTF-8
    } else if ((byte >= 0x20 && byte != 0x7f) || byte == '\n' || byte == '\t') {
      kept += text[i];
    }
  }
  return kept;
}

absl::Status StandardOutputStatus() {
  const int error = standard_output_error;
  if (error == 0) return absl::OkStatus();
  return absl::InternalError(fmt::format("standard output: {}", std::strerror(error)));
}

bool WriteAll(int descriptor, std::string_view text) {
  if (process::WriteAll(descriptor, text)) return true;
  int good = 0;
  if (descriptor == STDOUT_FILENO) standard_output_error.compare_exchange_strong(good, errno);
  return false;
}

}  // namespace baleen::cli
