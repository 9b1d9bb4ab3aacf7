#include "worker/engine/inbox.h"

#include <fmt/format.h>

#include <utility>

#include "proto/contract/status.h"

namespace baleen::worker {

absl::Status Inbox::Push(Command command) {
  const bool is_start = std::holds_alternative<StartCommand>(command);
  const bool is_control = std::holds_alternative<CancelCommand>(command) ||
                          std::holds_alternative<ReleaseCommand>(command);
  const bool is_drain = std::holds_alternative<DrainCommand>(command);
  std::lock_guard lock(mutex_);
  if (is_start && starts_ >= limits_.starts_max) {
    return contract::MakeStatus(
        contract::Reason::kQueueFull,
        fmt::format("worker inbox holds {} new requests, its limit", limits_.starts_max));
  }
  if (is_control && controls_ >= limits_.controls_max) {
    return contract::MakeStatus(
        contract::Reason::kQueueFull,
        fmt::format("worker inbox holds {} cancels and releases, its limit", limits_.controls_max));
  }
  if (is_drain && has_drain_) return absl::OkStatus();
  has_drain_ = has_drain_ || is_drain;
  starts_ += is_start ? 1 : 0;
  controls_ += is_control ? 1 : 0;
  commands_.push_back(std::move(command));
  EndWait();
  return absl::OkStatus();
}

void Inbox::Wake() {
  std::lock_guard lock(mutex_);
  woken_ = true;
  EndWait();
}

void Inbox::EndWait() {
  if (sleeping_in_ != nullptr) {
    sleeping_in_->Interrupt();
  } else {
    arrived_.notify_one();
  }
}

std::vector<Command> Inbox::Take() {
  std::lock_guard lock(mutex_);
  starts_ = 0;
  controls_ = 0;
  has_drain_ = false;
  return std::exchange(commands_, {});
}

void Inbox::WaitFor(absl::Duration limit) {
  std::unique_lock lock(mutex_);
  arrived_.wait_for(lock, absl::ToChronoMicroseconds(limit),
                    [this] { return woken_ || !commands_.empty(); });
  woken_ = false;
}

absl::StatusOr<bool> Inbox::WaitIn(StepBarrier& barrier, absl::Duration limit) {
  {
    std::lock_guard lock(mutex_);
    if (woken_ || !commands_.empty()) limit = absl::ZeroDuration();
    sleeping_in_ = &barrier;
  }
  absl::StatusOr<bool> waited_for = barrier.AwaitPeers(limit);
  std::lock_guard lock(mutex_);
  sleeping_in_ = nullptr;
  woken_ = false;
  return waited_for;
}

}  // namespace baleen::worker
