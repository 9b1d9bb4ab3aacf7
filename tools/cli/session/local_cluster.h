// A cluster on this machine, for the commands that run one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/cli/cluster/supervisor.h"
#include "tools/cli/session/cluster_options.h"
#include "tools/cli/terminal/table.h"

namespace baleen::cli {

// Everything but on_ready: executables beside this one, limits, logs to stderr. Errors name what is
// missing.
absl::StatusOr<SupervisorOptions> MakeSupervisorOptions(const ClusterOptions& options);

// Addresses for people: gRPC, the leader of each group of several ranks, and the metrics page of
// each process.
TableRows AddressRows(const RunningCluster& cluster, bool tls);

// Runs a cluster on a thread of its own, and stops it when it goes. Only what goes wrong is logged,
// and nothing while it stops.
class LocalCluster {
 public:
  static absl::StatusOr<std::unique_ptr<LocalCluster>> Start(const ClusterOptions& options);
  ~LocalCluster();

  // The cluster once it answers; why it does not come up, or CANCELLED after RequestStop. Bounded
  // by ready_seconds.
  absl::StatusOr<RunningCluster> WaitUntilReady();
  // Stops it and waits for the end: OK, or which process did not stop in order. Bounded by the
  // drain.
  absl::Status Stop();
  // Any thread. The second time, the processes are killed.
  void RequestStop() { supervisor_->RequestStop(); }

 private:
  LocalCluster() = default;

  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<RunningCluster> ready_;   // guarded by mutex_
  std::optional<absl::Status> finished_;  // guarded by mutex_
  std::unique_ptr<Supervisor> supervisor_;
  std::thread thread_;
};

}  // namespace baleen::cli
