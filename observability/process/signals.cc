#include "observability/process/signals.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "observability/base/check.h"

namespace baleen::process {
namespace {

sigset_t StopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t set = StopSignals();
  BALEEN_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0, "blocking signals cannot fail");
}

bool AwaitStopSignal(absl::Duration limit) {
  const sigset_t set = StopSignals();
  const timespec wait = absl::ToTimespec(std::max(limit, absl::ZeroDuration()));
  // EAGAIN: the time is over. EINTR: another signal; the caller waits again.
  return sigtimedwait(&set, nullptr, &wait) > 0;
}

// To the process, not to the thread: it waits for AwaitStopSignal.
void RequestStop() {
  BALEEN_CHECK(kill(getpid(), SIGTERM) == 0, "a signal to ourselves cannot fail");
}

void RaiseOpenFilesLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);  // up to the hard limit is always allowed
}

bool DieWithParent(int parent) {
  BALEEN_CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0, "asking for a signal cannot fail");
  return getppid() == parent;
}

}  // namespace baleen::process
