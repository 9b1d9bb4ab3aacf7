// What main.cc wires on a rank of a group: membership, the leader's service on rank 0, endpoints.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "security/certificates/certificate_store.h"
#include "worker/engine/inbox.h"
#include "worker/expert_parallel/exchange_meter.h"
#include "worker/group/group_service.h"
#include "worker/group/runtime/group_runtime.h"
#include "worker/model/expert_host.h"
#include "worker/model/loading/model_directory.h"
#include "worker/options.h"

namespace baleen::worker {

// Of this process.
struct GroupRankParts {
  std::uint64_t incarnation = 0;
  metrics::Registry& registry;
  std::shared_ptr<security::CertificateStore> certificates;  // of the inside; null: plaintext
};

class GroupRank {
 public:
  // Listens on rank 0, and asks the leader in. INVALID_ARGUMENT: experts that can not be placed on
  // so many ranks. `limits` are those of the model's steps.
  static absl::StatusOr<std::unique_ptr<GroupRank>> Join(const WorkerOptions& options,
                                                         const ModelDirectory& directory,
                                                         const StepLimits& limits,
                                                         const GroupRankParts& parts);

  // The share that this rank is to load. DEADLINE_EXCEEDED: the leader did not come, or names the
  // ranks that did not. CANCELLED: the process was asked to stop.
  absl::StatusOr<ExpertShard> AwaitShard();

  // The shard is loaded in `experts`: from now on the engine gets endpoints. Borrowed.
  void Run(ExpertHost& experts, Inbox& inbox);

  // Until the group has formed for the first time. Errors as above.
  absl::Status AwaitFormed();

  Group& group() { return *runtime_; }
  // Why this process can not be part of the group any more: it has been asked to stop then.
  absl::Status failure() const;

 private:
  GroupRank(const WorkerOptions& options, const PlacementShape& placement,
            const AllToAllShape& shape)
      : options_(options), placement_shape_(placement), shape_(shape), meter_(shape.ranks) {}

  absl::Status Listen(const ModelDirectory& directory, const GroupTerms& terms);
  void Tick();
  void AskIn(const ModelDirectory& directory, const GroupTerms& terms, std::uint64_t incarnation);

  const WorkerOptions options_;
  std::shared_ptr<security::CertificateStore> certificates_;
  PlacementShape placement_shape_;
  AllToAllShape shape_;
  ExchangeMeter meter_;
  std::unique_ptr<GroupReports> reports_;
  GroupPlacement placement_;
  std::unique_ptr<GroupService> service_;  // of the leader; goes after our own membership
  std::unique_ptr<GroupRuntime> runtime_;
};

}  // namespace baleen::worker
