// The main of a server process: command line, signals, exit codes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "observability/process/run.h"
#include "observability/process/signals.h"
#include "observability/process/standard_streams.h"

namespace baleen::process {
namespace {

using testing::HasSubstr;

struct Options {
  std::uint32_t size = 7;
  absl::Duration wait = absl::Seconds(30);
  ProcessOptions process = {.name = "test"};
};

absl::StatusOr<Options> ParseInto(std::vector<const char*> arguments) {
  Options options;
  CLI::App app("A test.", "test");
  AddOption(app, "--step-size", options.size, "Size of a step")->check(CLI::Range(1u, 9u));
  AddSeconds(app, "--wait-seconds", options.wait, "The longest wait", 1);
  AddProcessOptions(app, options.process);
  arguments.insert(arguments.begin(), "test");
  const absl::Status parsed =
      Parse(app, static_cast<int>(arguments.size()), arguments.data(), options.process);
  if (!parsed.ok()) return parsed;
  return options;
}

TEST(CommandLine, DefaultsStay) {
  const auto options = ParseInto({});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->wait, absl::Seconds(30));
  EXPECT_EQ(options->process.drain, absl::Seconds(10));
  EXPECT_EQ(options->process.log_level, log::Level::kInfo);
  EXPECT_EQ(options->process.log_format, log::Format::kText);
}

TEST(CommandLine, FlagsComeBeforeTheEnvironment) {
  EXPECT_EQ(EnvironmentNameOf("--step-size"), "BALEEN_STEP_SIZE");
  setenv("BALEEN_STEP_SIZE", "3", 1);
  setenv("BALEEN_LOG_LEVEL", "error", 1);
  setenv("BALEEN_WAIT_SECONDS", "5", 1);
  const auto options = ParseInto({"--step-size", "4"});
  unsetenv("BALEEN_STEP_SIZE");
  unsetenv("BALEEN_LOG_LEVEL");
  unsetenv("BALEEN_WAIT_SECONDS");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->size, 4u);
  EXPECT_EQ(options->wait, absl::Seconds(5));
  EXPECT_EQ(options->process.log_level, log::Level::kError);
}

TEST(CommandLine, RefusalsNameFlagAndLimitInOneLine) {
  const struct {
    std::vector<const char*> arguments;
    const char* says;
  } cases[] = {
      {{"--step-size", "10"}, "--step-size: Value 10 not in range"},
      {{"--wait-seconds", "0"}, "--wait-seconds: Value 0 not in range 1 to 86400"},
      {{"--drain-seconds", "-1"}, "--drain-seconds"},
      {{"--log-level", "loud"}, "--log-level: loud not in"},
      {{"--metrics-listen", "here"}, "--metrics-listen: 'here' is not host:port"},
      {{"--metrics-listen", ":1"}, "':1' is not host:port"},
      {{"--metrics-listen", "a:65536"}, "a port up to 65535"},
      {{"--metrics-listen", "a:+1"}, "'a:+1' is not host:port"},
      {{"--shoes"}, "--shoes"},
  };
  for (const auto& c : cases) {
    const std::string status = ParseInto(c.arguments).status().ToString();
    EXPECT_THAT(status, HasSubstr(c.says));
    EXPECT_EQ(status.find('\n'), std::string::npos) << status;
  }
}

// CLI11 took 010 for 8, 2^64 for 2^64 - 1, and -1 for a number without a word about the limits.
TEST(CommandLine, WholeNumbersAreDecimalAndWithinTheirLimits) {
  const CLI::Validator number = WholeNumber(1, 20);
  const CLI::Validator any = WholeNumber(0, ~std::uint64_t{0});
  for (std::string good : {"1", "10", "20"}) EXPECT_EQ(number(good), "") << good;
  for (std::string good : {"0", "18446744073709551615"}) EXPECT_EQ(any(good), "") << good;
  for (std::string bad : {"0", "21", "010", "0x5", "-1", "+1", "1.0", "", " 1", "1e1"}) {
    EXPECT_EQ(number(bad), "Value " + bad + " not in range 1 to 20, in decimal digits");
  }
  std::string too_large = "18446744073709551616";
  EXPECT_THAT(any(too_large), HasSubstr("0 to 18446744073709551615"));
}

// gRPC dialled port 99999 modulo 65536, and port 0 when there was none.
TEST(CommandLine, AddressesToDialHaveAPort) {
  for (const char* good : {"127.0.0.1:1", "host:65535", "[::1]:80"}) {
    EXPECT_TRUE(CheckHostPort("--router", good, 1).ok()) << good;
  }
  for (const char* bad : {"127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999", ":1", "::1", "[]:1",
                          "[::1:80", "::1:80", "a:", "a: 1", "a:0x1"}) {
    const absl::Status status = CheckHostPort("--router", bad, 1);
    EXPECT_EQ(status.message(), std::string("--router: '") + bad +
                                    "' is not host:port with a port from 1 up to 65535");
  }
  EXPECT_TRUE(CheckHostPort("--listen", "127.0.0.1:0").ok());
}

TEST(CommandLine, HelpShowsDefaultsAndVariables) {
  const auto options = ParseInto({"--help"});
  ASSERT_TRUE(options.ok());
  for (const char* part : {"=7", "=30", "=10", "=info", "=text", "BALEEN_LOG_LEVEL"}) {
    EXPECT_THAT(options->process.help, HasSubstr(part));
  }
}

TEST(AwaitIdle, EndsWithTheWorkOrTheTime) {
  int asked = 0;
  EXPECT_TRUE(AwaitIdle(absl::Minutes(1), [&] { return ++asked == 3; }));
  EXPECT_EQ(asked, 3);
  EXPECT_FALSE(AwaitIdle(absl::ZeroDuration(), [] { return false; }));
}

// In a child, whose signal mask is its own business.
template <typename Body>
int ExitCodeOf(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

// In children: Run blocks signals for the rest of a process.
TEST(Run, ExitCodes) {
  const ProcessOptions options{.name = "test"};
  EXPECT_EQ(ExitCodeOf([&] { return process::Run(options, [] { return absl::OkStatus(); }); }), 0);
  EXPECT_EQ(ExitCodeOf([&] {
              testing::internal::CaptureStderr();
              const auto fails = [] { return absl::InternalError("it broke"); };
              if (process::Run(options, fails) != 1) return 1;
              return testing::internal::GetCapturedStderr() == "error: it broke\n" ? 0 : 2;
            }),
            0);
  EXPECT_EQ(ExitCodeOf([] { return RefuseCommandLine(absl::InvalidArgumentError("--x: bad")); }),
            2);
  EXPECT_EQ(ExitCodeOf([] {
              testing::internal::CaptureStdout();
              const auto never = [] { return absl::InternalError("help serves nothing"); };
              if (process::Run({.help = "Usage\n"}, never) != 0) return 1;
              return testing::internal::GetCapturedStdout() == "Usage\n" ? 0 : 2;
            }),
            0);
  // Help that nobody could read was a success.
  EXPECT_EQ(ExitCodeOf([] {
              close(STDOUT_FILENO);
              return process::Run({.help = "Usage\n"}, [] { return absl::OkStatus(); });
            }),
            1);
}

TEST(Signals, StopSignalsWaitToBeAskedFor) {
  EXPECT_EQ(ExitCodeOf([] {
              BlockStopSignals();
              if (AwaitStopSignal(absl::ZeroDuration())) return 1;
              kill(getpid(), SIGTERM);
              if (!AwaitStopSignal(absl::Seconds(30))) return 2;
              kill(getpid(), SIGINT);
              return AwaitStopSignal(absl::Seconds(30)) ? 0 : 3;
            }),
            0);
}

TEST(Signals, AChildGoesWithItsParent) {
  int alive[2];
  ASSERT_EQ(pipe(alive), 0);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    const pid_t middle = getpid();
    if (fork() == 0) {  // holds the write end of `alive` until it dies
      close(alive[0]);
      const bool in_time = DieWithParent(middle);
      if (write(ready[1], in_time ? "y" : "n", 1) != 1) _exit(1);
      while (true) pause();
    }
    while (true) pause();
  }
  close(alive[1]);
  close(ready[1]);
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  EXPECT_EQ(answer, 'y');
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_EQ(read(alive[0], &answer, 1), 0) << "the end of the pipe: all who held it are gone";
  close(alive[0]);
  close(ready[0]);
}

// Descriptors that are closed when a process starts went to its sockets and files, which then got
// what was meant for a terminal.
TEST(StandardStreams, AreNeverSomethingElse) {
  EXPECT_EQ(ExitCodeOf([] {
              for (int number = 0; number <= 2; ++number) close(number);
              OpenStandardStreams();
              const int next = dup(0);
              if (next <= 2) return 1;
              char byte = 0;
              if (read(0, &byte, 1) != 0) return 2;  // empty
              const absl::Status lost = PrintToStandardOutput("x");
              if (lost.message() != "standard output: Bad file descriptor") return 3;
              return write(2, "x", 1) == 1 ? 0 : 4;
            }),
            0);
  EXPECT_EQ(ExitCodeOf([] {
              OpenStandardStreams();  // they are open: nothing happens
              const int full = open("/dev/full", O_WRONLY);
              dup2(full, 1);
              const absl::Status lost = PrintToStandardOutput("x");
              return lost.message() == "standard output: No space left on device" ? 0 : 1;
            }),
            0);
}

TEST(Signals, AParentThatIsGoneAlreadyIsNoticed) {
  EXPECT_EQ(ExitCodeOf([] { return DieWithParent(getppid()) ? 0 : 1; }), 0);
  EXPECT_EQ(ExitCodeOf([] { return DieWithParent(getppid() + 1) ? 0 : 1; }), 1);
}

}  // namespace
}  // namespace baleen::process
