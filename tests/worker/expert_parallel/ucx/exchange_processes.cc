#include "tests/worker/expert_parallel/ucx/exchange_processes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "observability/base/check.h"

extern char** environ;

namespace baleen::worker {
namespace {

constexpr int kWaitMaxMs = 30'000;

std::vector<char*> ArgumentsOf(std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  return arguments;
}

}  // namespace

bool RunQuietly(std::vector<std::string> command) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
  }
  const std::vector<char*> arguments = ArgumentsOf(command);
  pid_t pid = -1;
  const int failed = posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  return failed == 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

ExchangeProcess::ExchangeProcess(std::vector<std::string> command) {
  int down[2];
  int up[2];
  BALEEN_CHECK(pipe2(down, O_CLOEXEC) == 0 && pipe2(up, O_CLOEXEC) == 0, "pipes are to be had");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, down[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, up[1], STDOUT_FILENO);
  std::vector<char*> arguments;
  for (std::string& word : command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const int failed =
      posix_spawnp(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  BALEEN_CHECK(failed == 0, "the program starts");
  close(down[0]);
  close(up[1]);
  to_ = down[1];
  from_ = up[0];
}

ExchangeProcess::~ExchangeProcess() {
  Kill();
  close(to_);
  close(from_);
}

void ExchangeProcess::Tell(const std::string& line) {
  const std::string bytes = line + "\n";
  ASSERT_EQ(write(to_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

std::string ExchangeProcess::Await(const std::string& prefix) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(kWaitMaxMs);
  std::string others;
  for (;;) {
    for (std::size_t end; (end = heard_.find('\n')) != std::string::npos;) {
      const std::string line = heard_.substr(0, end);
      heard_.erase(0, end + 1);
      if (line.starts_with(prefix)) return line.substr(prefix.size());
      others += line + "\n";
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        limit - std::chrono::steady_clock::now());
    pollfd waiting{.fd = from_, .events = POLLIN, .revents = 0};
    char buffer[4096];
    if (left.count() <= 0 || poll(&waiting, 1, static_cast<int>(left.count())) <= 0) break;
    const ssize_t size = read(from_, buffer, sizeof(buffer));
    if (size <= 0) break;
    heard_.append(buffer, static_cast<std::size_t>(size));
  }
  ADD_FAILURE() << "the process did not say: " << prefix << ", but: " << others;
  return "";
}

bool ExchangeProcess::Ends() {
  pollfd ended{.fd = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)), .events = POLLIN};
  const bool in_time = poll(&ended, 1, kWaitMaxMs) == 1;
  close(ended.fd);
  return in_time;
}

void ExchangeProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace baleen::worker
