#include "tools/cli/terminal/line_input.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace baleen::cli {

absl::StatusOr<std::optional<std::string>> LineInput::Next(const Interrupts& interrupts) {
  std::array<char, 4096> buffer;
  for (;;) {
    if (interrupts.ended()) return std::optional<std::string>();
    if (auto line = TakeLine()) return line;
    if (at_end_) return std::optional<std::string>();
    if (buffer_.size() > kLineBytesMax) {
      return absl::ResourceExhaustedError(
          fmt::format("a line of more than {} bytes", kLineBytesMax));
    }
    std::array<pollfd, 2> wanted{{{.fd = descriptor_, .events = POLLIN, .revents = 0},
                                  {.fd = interrupts.number(), .events = POLLIN, .revents = 0}}};
    if (::poll(wanted.data(), wanted.size(), -1) < 0 || wanted[0].revents == 0) continue;
    const ssize_t got = ::read(descriptor_, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      at_end_ = true;
    } else {
      buffer_.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }
}

std::optional<std::string> LineInput::TakeLine() {
  const std::size_t newline = buffer_.find('\n');
  if (newline == std::string::npos && (!at_end_ || buffer_.empty())) return std::nullopt;
  std::string line = buffer_.substr(0, newline);
  buffer_.erase(0, newline == std::string::npos ? newline : newline + 1);
  if (!line.empty() && line.back() == '\r') line.pop_back();
  return line;
}

absl::StatusOr<std::string> ReadAll(int descriptor, std::size_t bytes_max) {
  std::string text;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::InternalError(fmt::format("read: {}", std::strerror(errno)));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() > bytes_max) {
      return absl::ResourceExhaustedError(
          fmt::format("standard input has more than {} bytes", bytes_max));
    }
  }
}

}  // namespace baleen::cli
