#include "observability/process/run.h"

#include <unistd.h>

#include <iostream>
#include <string>

#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/process/signals.h"
#include "observability/process/standard_streams.h"

namespace baleen::process {
namespace {

constexpr absl::Duration kIdleLook = absl::Milliseconds(10);

int Conclude(const absl::Status& status, int exit_code_if_bad = 1) {
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << std::endl;
  return exit_code_if_bad;
}

}  // namespace

int RefuseCommandLine(const absl::Status& why) { return Conclude(why, 2); }

int Run(const ProcessOptions& options, absl::FunctionRef<absl::Status()> serve) {
  const int parent = getppid();
  if (!options.help.empty()) {
    return Conclude(PrintToStandardOutput(options.help));
  }
  log::Init(options.name, options.log_format, options.log_level);
  BlockStopSignals();
  if (options.die_with_parent && !DieWithParent(parent)) return 1;
  RaiseOpenFilesLimit();
  const absl::Status status = serve();
  log::Flush();
  return Conclude(status);
}

void AwaitStop() {
  while (!AwaitStopSignal(absl::Hours(1))) {
  }
}

bool AwaitIdle(absl::Duration limit, absl::FunctionRef<bool()> idle) {
  const absl::Duration end = SystemClock().Monotonic() + limit;
  while (!idle()) {
    if (SystemClock().Monotonic() >= end || AwaitStopSignal(kIdleLook)) return idle();
  }
  return true;
}

}  // namespace baleen::process
