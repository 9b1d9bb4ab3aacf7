// Who is attached: checks each worker's Hello, keeps its lease, and tells the dispatcher who comes,
// falls silent and goes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "proto/contract/limits.h"
#include "router/dispatch/dispatcher.h"
#include "router/dispatch/links.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

// A model that this router serves.
struct ServedModel {
  std::string name;
  // The tokenizer's ids are below this, and the worker's vocabulary must hold them; 0 without one.
  std::uint32_t token_ids = 0;
};

struct RegistryOptions {
  std::vector<ServedModel> models;
  std::uint32_t workers_max = 4096;
  absl::Duration lease = absl::Milliseconds(contract::kLeaseMs);
};

class Registry {
 public:
  Registry(const RegistryOptions& options, const Clock& clock, Dispatcher& dispatcher);

  // All but view(): on the dispatch thread.

  // Takes a worker in. `link` is borrowed until its worker is lost: by Detach, by another Attach of
  // its name, or by Tick. A name belongs to one process: the same incarnation may attach again at
  // any time and replaces its old stream, another one once the name's holder has detached or is
  // suspect. FAILED_PRECONDITION: protocol version, a model that is not served here, or that
  // differs from the other workers'; INVALID_ARGUMENT: a field out of range; ALREADY_EXISTS: the
  // name is held by a live process, try again; RESOURCE_EXHAUSTED: workers_max.
  absl::StatusOr<WorkerId> Attach(WorkerInfo info, std::uint32_t protocol_version,
                                  WorkerLink& link);

  // A frame came in. False when the worker is not attached (any more): the frame must be dropped.
  bool Heard(WorkerId worker);

  // The worker's stream has ended; all its requests are lost. No effect when it was lost before.
  void Detach(WorkerId worker, std::string_view why);

  // Silence longer than a lease makes a worker suspect; longer than three closes its link and loses
  // it. To be called many times in a lease: when the latest Tick is half a lease ago, this process
  // was stopped itself and has heard nobody, and all workers get a fresh lease.
  void Tick();

  std::uint32_t Attached(Role role) const;  // and not suspect

  // Any thread: the workers as of the last change or Tick.
  std::shared_ptr<const ClusterView> view() const;

 private:
  struct Entry {
    std::shared_ptr<const WorkerInfo> info;
    WorkerLink* link = nullptr;
    absl::Duration heard;
    bool suspect = false;
  };

  absl::Status CheckModel(const WorkerInfo& info) const;
  absl::Status CheckName(const WorkerInfo& info) const;
  void Replace(const WorkerInfo& info);
  void Lose(WorkerId worker, std::string_view why);
  void Publish();

  const RegistryOptions options_;
  const Clock& clock_;
  Dispatcher& dispatcher_;
  std::map<WorkerId, Entry> entries_;
  std::uint64_t ids_given_ = 0;
  absl::Duration ticked_ = absl::InfiniteDuration();  // the latest Tick

  mutable std::mutex view_mutex_;
  std::shared_ptr<const ClusterView> view_;  // guarded by view_mutex_
};

// The fields of one Hello by themselves: OK, or INVALID_ARGUMENT that names the field and the
// limit.
absl::Status CheckWorkerInfo(const WorkerInfo& info);

}  // namespace baleen::router
