// ChildProcess: what a child inherits, how it ends, and that nothing is left of it.
#include "tools/cli/cluster/child_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "tools/cli/cluster/signals.h"

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

// All that a child writes to a stream until it closes it; the test's own time limit bounds the
// wait.
std::string ReadToEnd(int number) {
  std::string text;
  std::array<char, 1024> buffer;
  for (;;) {
    pollfd wanted{.fd = number, .events = POLLIN, .revents = 0};
    ::poll(&wanted, 1, -1);
    const ssize_t got = ::read(number, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

// Waits on SIGCHLD, as the supervisor does.
int WaitForEnd(ChildProcess& child) {
  auto signals = SignalDescriptor::Create({SIGCHLD});
  EXPECT_TRUE(signals.ok());
  for (;;) {
    if (const auto wait_status = child.Reap()) return *wait_status;
    pollfd wanted{.fd = signals->number(), .events = POLLIN, .revents = 0};
    ::poll(&wanted, 1, 1000);
    signals->Take();
  }
}

TEST(ChildProcess, GivesOutputAndExitCode) {
  BlockSignals();
  auto child = ChildProcess::Launch(
      {.executable = "/bin/sh", .arguments = {"-c", "echo out; echo err >&2; exit 3"}});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(ReadToEnd(child->stdout_number()), "out\n");
  EXPECT_EQ(ReadToEnd(child->stderr_number()), "err\n");
  EXPECT_EQ(DescribeWaitStatus(WaitForEnd(*child)), "exit code 3");
  EXPECT_EQ(child->Reap(), std::nullopt) << "reaped once only";
}

// A line "SigIgn:\t0000000000001000" of /proc/PID/status, as a set of signals.
std::uint64_t SignalSet(std::string_view status, std::string_view name) {
  const std::size_t at = status.find(name);
  EXPECT_NE(at, std::string_view::npos) << name;
  return std::stoull(std::string(status.substr(at + name.size() + 1, 17)), nullptr, 16);
}

TEST(ChildProcess, StartsWithNothingOfOurSignalsAndTerminal) {
  BlockSignals();
  auto child = ChildProcess::Launch(
      {.executable = "/bin/sh",
       .arguments = {"-c",
                     "grep -E 'SigBlk|SigIgn' /proc/self/status; wc -c; "
                     "test $(cut -d' ' -f5 /proc/$$/stat) = $$ && echo own-group"}});
  ASSERT_TRUE(child.ok()) << child.status();
  const std::string out = ReadToEnd(child->stdout_number());
  EXPECT_EQ(SignalSet(out, "SigBlk:"), 0u);
  // What whoever started us ignores (nohup, a CI runner) stays ignored; SIGPIPE was our own wish.
  std::ostringstream own;
  own << std::ifstream("/proc/self/status").rdbuf();
  constexpr std::uint64_t kPipe = std::uint64_t{1} << (SIGPIPE - 1);
  ASSERT_NE(SignalSet(own.str(), "SigIgn:") & kPipe, 0u);
  EXPECT_EQ(SignalSet(out, "SigIgn:"), SignalSet(own.str(), "SigIgn:") & ~kPipe);
  EXPECT_THAT(out, HasSubstr("\n0\n")) << "standard input is empty";
  EXPECT_THAT(out, HasSubstr("own-group"));
}

TEST(ChildProcess, AddsToTheEnvironment) {
  BlockSignals();
  ::setenv("BALEEN_OURS", "inherited", 1);
  auto child = ChildProcess::Launch({.executable = "/bin/sh",
                                     .arguments = {"-c", "echo $BALEEN_OURS $BALEEN_ADDED"},
                                     .environment = {"BALEEN_ADDED=added"}});
  ::unsetenv("BALEEN_OURS");
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(ReadToEnd(child->stdout_number()), "inherited added\n");
}

TEST(ChildProcess, DescribesADeathBySignal) {
  BlockSignals();
  auto child = ChildProcess::Launch({.executable = "/bin/sh", .arguments = {"-c", "kill -9 $$"}});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(DescribeWaitStatus(WaitForEnd(*child)), "killed by signal 9 (Killed)");
}

TEST(ChildProcess, TellsAnOrderlyEndFromACrash) {
  BlockSignals();
  struct Case {
    const char* script;
    bool in_order;
  };
  for (const Case& c : {Case{"exit 0", true}, Case{"exit 1", false}, Case{"kill -TERM $$", true},
                        Case{"kill -ABRT $$", false}, Case{"kill -KILL $$", false}}) {
    auto child = ChildProcess::Launch({.executable = "/bin/sh", .arguments = {"-c", c.script}});
    ASSERT_TRUE(child.ok()) << child.status();
    EXPECT_EQ(EndedInOrder(WaitForEnd(*child)), c.in_order) << c.script;
  }
}

TEST(ChildProcess, SaysWhatCanNotBeStarted) {
  const auto missing = ChildProcess::Launch({.executable = "/nonexistent/baleen-worker"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              HasSubstr("/nonexistent/baleen-worker: No such file"));
  const auto folder = ChildProcess::Launch({.executable = "/usr"});
  EXPECT_THAT(std::string(folder.status().message()), HasSubstr("/usr: Permission denied"));
}

TEST(ChildProcess, DestructionLeavesNoProcess) {
  pid_t pid = -1;
  {
    // Blocks for ever on the pipe that nobody reads.
    auto child = ChildProcess::Launch({.executable = "/bin/cat", .arguments = {"/dev/zero"}});
    ASSERT_TRUE(child.ok()) << child.status();
    pid = child->pid();
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
  EXPECT_EQ(errno, ESRCH) << "neither running nor a zombie";
}

}  // namespace
}  // namespace baleen::cli
