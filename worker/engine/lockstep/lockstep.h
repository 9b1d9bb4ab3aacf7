// The steps of a rank together with those of its group: opens each with all ranks, adopts changes
// of the placement before the same step everywhere, sleeps while none has work.
//
// An idle rank does not open steps. A rank that has work does, which wakes the others; they open it
// too and lend their experts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/metrics/metrics.h"
#include "worker/engine/inbox.h"
#include "worker/engine/lockstep/group.h"
#include "worker/model/model.h"

namespace baleen::worker {

struct LockstepOptions {
  // Steps in which some rank has so many tokens are computed in two parts that overlap; 0 = never.
  std::uint32_t micro_batch_rows = 0;
};

// The engine's thread only.
class Lockstep {
 public:
  // `group` is null for a rank that works alone: every step is due as soon as it has rows.
  // Borrowed.
  Lockstep(const LockstepOptions& options, Group* group, Inbox& inbox)
      : options_(options), group_(group), inbox_(inbox) {}

  // Takes a new epoch if the group has formed; true if it has.
  bool TakeFormed();
  // Whether requests can be computed: alone, or in a formed group.
  bool formed() const { return group_ == nullptr || endpoint_ != nullptr; }

  struct Work {
    std::uint32_t rows = 0;  // tokens that this rank brings
    bool leaves = false;     // it has none left, and takes none
  };
  enum class Outcome : std::uint8_t {
    kNotDue,    // nobody has work
    kNoTokens,  // opened, but no rank brings tokens
    kCompute,   // opened: compute with group_step()
  };
  // Opens a step if this rank has work or a peer waits for it. An error is the end of the epoch:
  // call Break.
  absl::StatusOr<Outcome> Open(const Work& work);
  GroupStep group_step() const { return {endpoint_.get(), micro_batches_}; }

  // After a step was computed.
  void Finish() {
    if (group_ != nullptr) group_->OnStep();
  }

  // Ends the epoch.
  void Break(const absl::Status& why);
  // Ends the epoch because this rank stops.
  void Leave();

  // Until a command comes, a peer opens a step, or `limit`.
  void Sleep(absl::Duration limit);

  // Some rank has said that it leaves: the group will end.
  bool any_leaves() const { return any_leaves_; }
  // All ranks have said that they leave, or there is nobody to leave.
  bool may_leave() const { return endpoint_ == nullptr || all_leave_; }

 private:
  void Drop(const absl::Status& why);
  absl::StatusOr<Outcome> Opened(std::span<const StepOpening> all);

  const LockstepOptions options_;
  Group* const group_;
  Inbox& inbox_;

  // Of this epoch.
  std::uint64_t epoch_ = 0;
  std::shared_ptr<GroupEndpoint> endpoint_;  // null while the group forms
  std::uint64_t step_ = 0;
  std::uint32_t adopted_ = 0;
  std::uint32_t said_prepared_ = 0;
  bool peer_waits_ = false;
  bool said_leave_ = false;
  bool all_leave_ = false;
  bool any_leaves_ = false;
  int micro_batches_ = 1;
  absl::Status broken_;  // found while asleep
};

}  // namespace baleen::worker
