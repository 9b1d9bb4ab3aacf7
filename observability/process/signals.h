// The signals that stop a server process, and the limits it lives under.
#pragma once

#include "absl/time/time.h"

namespace baleen::process {

// From now on SIGTERM and SIGINT are not delivered but wait for AwaitStopSignal. Call before any
// thread starts.
void BlockStopSignals();

// As if somebody had sent SIGTERM. Any thread.
void RequestStop();

// True when SIGTERM or SIGINT is there, or comes within `limit`; takes it.
bool AwaitStopSignal(absl::Duration limit);

// As many open files as the hard limit allows: a listener of gRPC that has once run out of them may
// never accept again.
void RaiseOpenFilesLimit();

// SIGKILL when the parent process ends: a drain has no reader then, and would keep ports and memory
// from those who come next. False when it has ended already. `parent` is what getppid said before.
bool DieWithParent(int parent);

}  // namespace baleen::process
