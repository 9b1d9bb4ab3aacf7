#include "observability/process/standard_streams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace baleen::process {

void OpenStandardStreams() {
  // stdout for reading only: who prints a result that nobody gets is told.
  constexpr int kModes[] = {O_RDONLY, O_RDONLY, O_WRONLY};
  for (int number = STDIN_FILENO; number <= STDERR_FILENO; ++number) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one. Without /dev/null, nothing can be done.
    [[maybe_unused]] const int opened = ::open("/dev/null", kModes[number]);
  }
}

bool WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

absl::Status PrintToStandardOutput(std::string_view text) {
  if (WriteAll(STDOUT_FILENO, text)) return absl::OkStatus();
  return absl::InternalError(fmt::format("standard output: {}", std::strerror(errno)));
}

}  // namespace baleen::process
