#include "tools/cli/cluster/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace baleen::cli {
namespace {

struct Pipe {
  Descriptor read;
  Descriptor write;
};

absl::StatusOr<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    return absl::ResourceExhaustedError(fmt::format("pipe: {}", std::strerror(errno)));
  }
  return Pipe{Descriptor(ends[0]), Descriptor(ends[1])};
}

// What the child needs between fork and exec, prepared before: there it may only make
// async-signal-safe calls.
struct ExecPlan {
  const char* executable = nullptr;
  char* const* arguments = nullptr;
  char* const* environment = nullptr;
  pid_t parent = 0;
  int null_input = -1;
  int out = -1;
  int err = -1;
  int failure = -1;  // gets errno if something fails; closed by a successful exec
};

[[noreturn]] void RunChild(const ExecPlan& plan) {
  ::setpgid(0, 0);
  // SIGKILL: a supervisor that is gone can not wait for an orderly stop.
  bool good = ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
  if (::getppid() != plan.parent) ::_exit(127);  // it died before the line above
  ::signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  good = good && ::dup2(plan.null_input, STDIN_FILENO) >= 0 &&
         ::dup2(plan.out, STDOUT_FILENO) >= 0 && ::dup2(plan.err, STDERR_FILENO) >= 0;
  if (good) ::execve(plan.executable, plan.arguments, plan.environment);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = ::write(plan.failure, &error, sizeof(error));
  ::_exit(127);
}

std::vector<char*> ArgumentVector(const ChildCommand& command) {
  std::vector<char*> vector;
  vector.push_back(const_cast<char*>(command.executable.c_str()));
  for (const std::string& argument : command.arguments) {
    vector.push_back(const_cast<char*>(argument.c_str()));
  }
  vector.push_back(nullptr);
  return vector;
}

std::vector<char*> EnvironmentVector(const ChildCommand& command) {
  std::vector<char*> vector;
  for (char** variable = environ; *variable != nullptr; ++variable) vector.push_back(*variable);
  for (const std::string& variable : command.environment) {
    vector.push_back(const_cast<char*>(variable.c_str()));
  }
  vector.push_back(nullptr);
  return vector;
}

void WaitBlocking(pid_t pid) {
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Launch(const ChildCommand& command) {
  std::array<Pipe, 3> pipes;  // stdout, stderr, failure of exec
  for (Pipe& pipe : pipes) {
    auto made = MakePipe();
    if (!made.ok()) return made.status();
    pipe = *std::move(made);
  }
  Descriptor null_input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::vector<char*> arguments = ArgumentVector(command);
  const std::vector<char*> environment = EnvironmentVector(command);
  const ExecPlan plan{.executable = command.executable.c_str(),
                      .arguments = arguments.data(),
                      .environment = environment.data(),
                      .parent = ::getpid(),
                      .null_input = null_input.number(),
                      .out = pipes[0].write.number(),
                      .err = pipes[1].write.number(),
                      .failure = pipes[2].write.number()};
  const pid_t pid = ::fork();
  if (pid < 0) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot start {}: fork: {}", command.executable, std::strerror(errno)));
  }
  if (pid == 0) RunChild(plan);

  for (Pipe& pipe : pipes) pipe.write.Close();
  int error = 0;
  ssize_t got = 0;
  while ((got = ::read(pipes[2].read.number(), &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  if (got == static_cast<ssize_t>(sizeof(error))) {
    WaitBlocking(pid);
    const std::string message =
        fmt::format("cannot start {}: {}", command.executable, std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(message) : absl::InternalError(message);
  }
  for (const Pipe* pipe : {&pipes[0], &pipes[1]}) {
    ::fcntl(pipe->read.number(), F_SETFL, O_NONBLOCK);
  }
  return ChildProcess(pid, std::move(pipes[0].read), std::move(pipes[1].read));
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      stdout_(std::move(other.stdout_)),
      stderr_(std::move(other.stderr_)) {}

ChildProcess::~ChildProcess() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  WaitBlocking(pid_);
}

void ChildProcess::Signal(int number) {
  if (pid_ > 0) ::kill(pid_, number);
}

std::optional<int> ChildProcess::Reap() {
  if (pid_ < 0) return std::nullopt;
  int wait_status = 0;
  if (::waitpid(pid_, &wait_status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return wait_status;
}

bool EndedInOrder(int wait_status) {
  return WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) == SIGTERM
                                  : WEXITSTATUS(wait_status) == 0;
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int number = WTERMSIG(wait_status);
    return fmt::format("killed by signal {} ({})", number, ::strsignal(number));
  }
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

}  // namespace baleen::cli
