#include "tests/integration/program.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "observability/base/clock.h"
#include "tools/cli/cluster/child_process.h"

namespace baleen::integration {
namespace {

const absl::Duration kProgramMax = absl::Seconds(60) * kSlowness;
constexpr int kLookMs = 5;

}  // namespace

std::string BinaryPath(const std::string& name) { return std::string(BINARY_FOLDER "/") + name; }

ProgramResult RunProgram(const std::string& name, const std::vector<std::string>& arguments) {
  ProgramResult result;
  const absl::Duration begun = SystemClock().Monotonic();
  const std::string path = name.find('/') == std::string::npos ? BinaryPath(name) : name;
  auto child = cli::ChildProcess::Launch({.executable = path, .arguments = arguments});
  if (!child.ok()) {
    ADD_FAILURE() << child.status();
    return result;
  }
  int wait_status = 0;
  const bool ended = Eventually(kProgramMax, [&] {
    ReadAvailable(child->stdout_number(), result.out);
    ReadAvailable(child->stderr_number(), result.err);
    const auto reaped = child->Reap();
    wait_status = reaped.value_or(0);
    return reaped.has_value();
  });
  ReadAvailable(child->stdout_number(), result.out);
  ReadAvailable(child->stderr_number(), result.err);
  EXPECT_TRUE(ended) << name << " does not end; it said:\n" << result.out << result.err;
  if (ended && WIFEXITED(wait_status)) result.exit_code = WEXITSTATUS(wait_status);
  result.took = SystemClock().Monotonic() - begun;
  return result;
}

void ReadAvailable(int number, std::string& text) {
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const ssize_t got = ::read(number, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

bool Eventually(absl::Duration limit, const std::function<bool()>& condition) {
  const absl::Duration deadline = SystemClock().Monotonic() + limit;
  while (!condition()) {
    if (SystemClock().Monotonic() >= deadline) return false;
    ::poll(nullptr, 0, kLookMs);  // other processes need the time
  }
  return true;
}

bool IsRunning(int pid) {
  if (::waitpid(pid, nullptr, WNOHANG) == pid) return false;
  return ::kill(pid, 0) == 0;
}

}  // namespace baleen::integration
