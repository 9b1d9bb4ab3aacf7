// Between a rank's membership and its engine: gives the engine an endpoint whenever the group has
// formed, takes it away when the group is lost, moves experts while it serves.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/inbox.h"
#include "worker/engine/lockstep/group.h"
#include "worker/expert_parallel/pending_endpoint.h"
#include "worker/group/group_member.h"
#include "worker/group/runtime/group_reports.h"
#include "worker/model/expert_host.h"

namespace baleen::worker {

// Borrowed; they outlive the runtime.
struct GroupRuntimeParts {
  ExpertHost& experts;
  Inbox& inbox;                     // of the engine; woken when there is something new
  EndpointMaker make_endpoint;      // called on the runtime's thread
  GroupReports* reports = nullptr;  // may be null
  // Called now and then on the runtime's thread. May be null.
  std::function<void()> on_tick;
  // Called once, on the runtime's thread, when this process can not be part of the group any more:
  // it was refused, or can not load what it is to hold. May be null.
  std::function<void(const absl::Status&)> on_failed;
};

class GroupRuntime final : public Group {
 public:
  explicit GroupRuntime(GroupMemberOptions options);
  // Leaves the group. The engine has stopped.
  ~GroupRuntime() override;

  // Asks the leader in, on a thread of its own. Errors as of GroupMember::Start.
  absl::Status Join() { return member_.Start(); }
  // The placement to load before Run, or why this process can not be part of the group. Nothing
  // while the leader has not answered.
  std::optional<absl::StatusOr<GroupPlacement>> TakeJoined();

  // After AwaitJoined: `loaded` is in effect in `parts.experts`. Returns at once.
  void Run(GroupPlacement loaded, const GroupRuntimeParts& parts);

  // OK once the group has formed for the first time; later or instead, the status of on_failed.
  // Nothing before. Any thread.
  std::optional<absl::Status> Outcome() const;

  // Of the engine.
  std::optional<FormedGroup> TakeFormed() override;
  void OnBroken(std::uint64_t epoch, const absl::Status& why) override;
  std::uint32_t Prepared() const override;
  void Adopt() override;
  void OnStep() override;

 private:
  struct LayerChange {
    std::size_t layer = 0;
    LayerPlacement placement;
  };

  void Loop();
  void OnMemberNews();
  void Wake();
  bool Stopping() const;
  std::shared_ptr<GroupEndpoint> SetLive(std::shared_ptr<GroupEndpoint> live);
  void WaitForNews();
  absl::Status HandleEvents();
  absl::Status Handle(const Joined& event);
  absl::Status Handle(const Formed& event);
  absl::Status Handle(const Lost& event);
  absl::Status Handle(const NewPlacement& event);
  absl::Status Handle(const Refused& event) { return event.why; }
  void DropBroken();
  absl::Status MakeReady();
  absl::Status PrepareNext();
  absl::Status LoadTarget();
  absl::Status Prepare(const LayerChange& change);
  std::optional<LayerChange> NextChange() const;
  void AdoptLocked();
  void ReportCounts();

  GroupMember member_;
  const std::int32_t ranks_;
  std::optional<GroupRuntimeParts> parts_;

  // The runtime's thread.
  std::unique_ptr<PendingEndpoint> pending_;
  std::uint64_t epoch_ = 0;
  bool epoch_open_ = false;  // Formed was handled, and its Lost was not
  bool owes_ready_ = false;
  ExpertCounts reported_;  // counts so far

  GroupPlacement target_;
  GroupPlacement loaded_;  // changed by the engine in Adopt while a prepared change waits for it

  mutable std::mutex mutex_;
  std::condition_variable news_;
  // Guarded by mutex_:
  bool has_news_ = true;
  bool stopping_ = false;
  bool leaving_ = false;                 // the engine stops
  std::shared_ptr<GroupEndpoint> live_;  // that the engine has; changed by the runtime's thread
  std::optional<FormedGroup> formed_;    // for the engine
  bool engine_has_endpoint_ = false;
  std::optional<absl::Status> broken_;  // by the engine
  std::uint32_t prepared_ = 0;
  std::optional<LayerChange> prepared_change_;  // waits to be adopted
  bool formed_once_ = false;
  absl::Status failed_;

  std::thread thread_;
};

}  // namespace baleen::worker
