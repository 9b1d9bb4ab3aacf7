#include "observability/process/run.h"

#include <unistd.h>

#include <iostream>
#include <string>

#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/process/signals.h"

namespace baleen::process {
namespace {

constexpr absl::Duration kIdleLook = absl::Milliseconds(10);

}  // namespace

int RefuseCommandLine(const absl::Status& why) {
  std::cerr << "error: " << why.message() << std::endl;
  return 2;
}

int Run(const ProcessOptions& options, absl::FunctionRef<absl::Status()> serve) {
  const int parent = getppid();
  if (!options.help.empty()) {
    std::cout << options.help << std::flush;
    return 0;
  }
  log::Init(options.name, options.log_format, options.log_level);
  BlockStopSignals();
  if (options.die_with_parent && !DieWithParent(parent)) return 1;
  const absl::Status status = serve();
  log::Flush();
  if (!status.ok()) {
    std::cerr << "error: " << status.message() << std::endl;
    return 1;
  }
  return 0;
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
