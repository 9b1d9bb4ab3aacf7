// Runs a local cluster: one poll loop over signals, the children's pipes and a probe, which does
// what Supervision decides.
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "tools/cli/cluster/spec/cluster_spec.h"
#include "tools/cli/cluster/supervision.h"

namespace baleen::cli {

// One process of a cluster that answers.
struct RunningChild {
  ChildSpec spec;
  ReadyLine ready;
  pid_t pid = -1;
};

using RunningCluster = std::vector<RunningChild>;  // the router first

struct SupervisorOptions {
  ClusterSpec spec;
  std::string router_executable;
  std::string worker_executable;
  SupervisionLimits limits;
  std::vector<int> stop_signals;  // blocked ones (BlockSignals) that stop the cluster; empty = only
                                  // RequestStop does

  // Whether the cluster answers. Called again and again on a thread of its own until it is true;
  // takes a second at most.
  std::function<bool(const RunningCluster&)> answers;
  // Called once, from Run.
  std::function<void(const RunningCluster&)> on_ready;
  bool tells_starts = true;  // log every start of a child, not only what went wrong
  // One line of a child's log, or one of ours under the name "up". Called from Run.
  std::function<void(std::string_view process, std::string_view line)> on_log;
};

class Supervisor {
 public:
  // INVALID_ARGUMENT for a bad spec; INTERNAL when the system refuses a descriptor.
  // Precondition: BlockSignals was called.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(SupervisorOptions options,
                                                            const Clock& clock);
  ~Supervisor();

  // Starts the cluster and returns when it has stopped: OK after a stop signal or RequestStop, else
  // why it could not come up, or which child crashed while it stopped. No child runs any more then.
  // Call once; the children live as long as the thread that is in here.
  absl::Status Run();

  // Stops the cluster in order; the second time at once. Any thread.
  void RequestStop();

 private:
  class Loop;
  explicit Supervisor(std::unique_ptr<Loop> loop);

  std::unique_ptr<Loop> loop_;
};

// Paths of baleen-router and baleen-worker: beside this executable. NOT_FOUND says which one is
// missing and where.
struct Executables {
  std::string router;
  std::string worker;
};
absl::StatusOr<Executables> FindExecutables();

}  // namespace baleen::cli
