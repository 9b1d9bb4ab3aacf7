#include "router/signals.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace baleen::router {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

bool AwaitStopSignal(absl::Duration limit) {
  const sigset_t signals = StopSignals();
  const timespec wait = absl::ToTimespec(limit);
  return sigtimedwait(&signals, nullptr, &wait) > 0;
}

bool DieWithParent(int parent) {
  return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent;
}

}  // namespace baleen::router
