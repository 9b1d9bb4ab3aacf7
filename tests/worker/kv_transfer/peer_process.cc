#include "tests/worker/kv_transfer/peer_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "absl/strings/escaping.h"
#include "observability/base/check.h"

extern char** environ;

namespace baleen::worker {

PeerProcess::PeerProcess() {
  int down[2];
  int up[2];
  BALEEN_CHECK(pipe2(down, O_CLOEXEC) == 0 && pipe2(up, O_CLOEXEC) == 0, "pipes are to be had");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, down[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, up[1], STDOUT_FILENO);
  std::string program = KV_TRANSFER_PEER;
  char* arguments[] = {program.data(), nullptr};
  const int failed = posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  BALEEN_CHECK(failed == 0, "the peer program starts");
  close(down[0]);
  close(up[1]);
  to_ = down[1];
  from_ = up[0];
  address_ = absl::HexStringToBytes(Await("address "));
}

PeerProcess::~PeerProcess() {
  Kill();
  close(to_);
  close(from_);
}

void PeerProcess::Expect(contract::TransferId id, std::size_t blocks) {
  Tell("expect " + std::to_string(id.value) + " " + std::to_string(blocks));
}

void PeerProcess::Send(contract::TransferId id, const std::string& peer, std::size_t first,
                       std::size_t end) {
  Tell("send " + std::to_string(id.value) + " " + absl::BytesToHexString(peer) + " " +
       std::to_string(first) + " " + std::to_string(end));
}

void PeerProcess::Close(contract::TransferId id, const std::string& peer, std::size_t blocks) {
  Tell("close " + std::to_string(id.value) + " " + absl::BytesToHexString(peer) + " " +
       std::to_string(blocks));
}

void PeerProcess::Tell(const std::string& line) {
  const std::string bytes = line + "\n";
  ASSERT_EQ(write(to_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
}

std::string PeerProcess::Await(const std::string& prefix) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (;;) {
    for (std::size_t end; (end = heard_.find('\n')) != std::string::npos;) {
      const std::string line = heard_.substr(0, end);
      heard_.erase(0, end + 1);
      if (line.starts_with(prefix)) return line.substr(prefix.size());
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
  ADD_FAILURE() << "the peer process did not say: " << prefix;
  return "";
}

std::string PeerProcess::AwaitEvent(contract::TransferId id) {
  return Await("event " + std::to_string(id.value) + " ");
}

void PeerProcess::Stop() {
  kill(pid_, SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(pid_, &status, WUNTRACED), pid_);
  ASSERT_TRUE(WIFSTOPPED(status));
}

void PeerProcess::Continue() { kill(pid_, SIGCONT); }

void PeerProcess::Kill() {
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace baleen::worker
