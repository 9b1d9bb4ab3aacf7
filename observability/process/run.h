// The main of a server process, from its parsed command line to its exit code.
#pragma once

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/process/command_line.h"

namespace baleen::process {

// Prints the help if it was asked for. Else begins to log, keeps stop signals for AwaitStop, and
// calls `serve`. Exit code: 0, 1 after "error: ..." on stderr, 2 for a bad command line. Call it
// early in main: the parent of that moment is the one to die with.
int Run(const ProcessOptions& options, absl::FunctionRef<absl::Status()> serve);
int RefuseCommandLine(const absl::Status& why);

// `Options` has a member `process`.
template <typename Options>
int Run(const absl::StatusOr<Options>& parsed,
        absl::FunctionRef<absl::Status(const Options&)> serve) {
  if (!parsed.ok()) return RefuseCommandLine(parsed.status());
  return Run(parsed->process, [&] { return serve(*parsed); });
}

// Until somebody asks the process to stop.
void AwaitStop();

// Waits until what runs has finished: `idle` is asked again and again. False when a second signal,
// or the end of `limit`, cuts it short.
bool AwaitIdle(absl::Duration limit, absl::FunctionRef<bool()> idle);

}  // namespace baleen::process
