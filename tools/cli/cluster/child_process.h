// One child process with pipes on its stdout and stderr. It can not outlive this process: the
// kernel kills it when its parent dies.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/cli/cluster/descriptor.h"

namespace baleen::cli {

struct ChildCommand {
  std::string executable;              // path
  std::vector<std::string> arguments;  // without the program's name
  std::vector<std::string> environment =
      {};  // "NAME=value", added to ours; not a name that we have
};

// Threading: the kernel ties the child's life to the *thread* that launched it, so launch from one
// that lives as long as the child should.
class ChildProcess {
 public:
  // The child reads /dev/null, has its own process group (Ctrl-C at the terminal reaches only us,
  // who then stop it in order) and no blocked signals. NOT_FOUND or INTERNAL name the executable.
  static absl::StatusOr<ChildProcess> Launch(const ChildCommand& command);

  ChildProcess(ChildProcess&&) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  // Kills and reaps the child if it still runs.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  // Non-blocking read ends.
  int stdout_number() const { return stdout_.number(); }
  int stderr_number() const { return stderr_.number(); }

  // No effect once the child is reaped.
  void Signal(int number);
  // Its wait status, as of waitpid, if it has ended; reaps it, so that no zombie lingers. Never
  // blocks.
  std::optional<int> Reap();

 private:
  ChildProcess(pid_t pid, Descriptor out, Descriptor err)
      : pid_(pid), stdout_(std::move(out)), stderr_(std::move(err)) {}

  pid_t pid_ = -1;  // -1 = reaped or moved from
  Descriptor stdout_;
  Descriptor stderr_;
};

// "exit code 1" or "killed by signal 9 (Killed)".
std::string DescribeWaitStatus(int wait_status);

// Exit code 0, or ended by the SIGTERM that asked for it (a child that was still starting).
bool EndedInOrder(int wait_status);

}  // namespace baleen::cli
