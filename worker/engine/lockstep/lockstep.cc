#include "worker/engine/lockstep/lockstep.h"

#include <algorithm>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {

bool Lockstep::TakeFormed() {
  if (group_ == nullptr || endpoint_ != nullptr) return false;
  std::optional<FormedGroup> formed = group_->TakeFormed();
  if (!formed.has_value()) return false;
  BALEEN_CHECK(formed->epoch > epoch_, "epochs count up");
  epoch_ = formed->epoch;
  endpoint_ = std::move(formed->endpoint);
  step_ = 0;
  adopted_ = 0;
  said_prepared_ = 0;
  peer_waits_ = false;
  said_leave_ = false;
  all_leave_ = false;
  any_leaves_ = false;
  broken_ = absl::OkStatus();
  return true;
}

absl::StatusOr<Lockstep::Outcome> Lockstep::Open(const Work& work) {
  if (group_ == nullptr) return work.rows > 0 ? Outcome::kCompute : Outcome::kNotDue;
  if (endpoint_ == nullptr) return Outcome::kNotDue;
  BALEEN_RETURN_IF_ERROR(broken_);
  const std::uint32_t prepared = group_->Prepared();
  const bool peer_waits = std::exchange(peer_waits_, false);
  const bool due =
      work.rows > 0 || peer_waits || prepared > said_prepared_ || (work.leaves && !said_leave_);
  if (!due) return Outcome::kNotDue;
  ++step_;
  said_leave_ = work.leaves;
  said_prepared_ = prepared;
  BALEEN_ASSIGN_OR_RETURN(const std::span<const StepOpening> all,
                          endpoint_->OpenStep({.epoch = epoch_,
                                               .step = step_,
                                               .rows = work.rows,
                                               .prepared = prepared,
                                               .leaves = work.leaves}));
  return Opened(all);
}

// What follows from what all ranks have said: the same on all of them.
absl::StatusOr<Lockstep::Outcome> Lockstep::Opened(std::span<const StepOpening> all) {
  std::uint32_t rows_largest = 0;
  std::uint32_t prepared_by_all = all.front().prepared;
  all_leave_ = true;
  any_leaves_ = false;
  for (const StepOpening& opening : all) {
    rows_largest = std::max(rows_largest, opening.rows);
    prepared_by_all = std::min(prepared_by_all, opening.prepared);
    all_leave_ = all_leave_ && opening.leaves;
    any_leaves_ = any_leaves_ || opening.leaves;
  }
  for (; adopted_ < prepared_by_all; ++adopted_) group_->Adopt();
  const bool split = options_.micro_batch_rows > 0 && rows_largest >= options_.micro_batch_rows;
  micro_batches_ = split ? kLanes : 1;
  return rows_largest > 0 ? Outcome::kCompute : Outcome::kNoTokens;
}

void Lockstep::Break(const absl::Status& why) {
  if (endpoint_ == nullptr) return;
  if (all_leave_) {
    log::Info("the group has ended", {{"epoch", epoch_}, {"step", step_}});
  } else {
    log::Error("the group is broken",
               {{"epoch", epoch_}, {"step", step_}, {"status", why.ToString()}});
  }
  Drop(why);
}

void Lockstep::Leave() {
  if (group_ != nullptr) Drop(absl::CancelledError("this rank stops"));
}

void Lockstep::Drop(const absl::Status& why) {
  if (endpoint_ != nullptr) endpoint_->Abort(why);
  endpoint_.reset();
  group_->OnBroken(epoch_, why);
}

void Lockstep::Sleep(absl::Duration limit) {
  if (endpoint_ == nullptr) {
    inbox_.WaitFor(limit);
    return;
  }
  const absl::StatusOr<bool> waited_for = inbox_.WaitIn(*endpoint_, limit);
  if (waited_for.ok()) {
    peer_waits_ = *waited_for;
  } else {
    broken_ = waited_for.status();
  }
}

}  // namespace baleen::worker
