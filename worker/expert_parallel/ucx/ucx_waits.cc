// UcxGroup: what is sent within a step, how it is waited for, and how an endpoint ends.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "observability/base/status_macros.h"
#include "worker/expert_parallel/ucx/ucx_group.h"

namespace baleen::worker {
namespace {

// How long a wait looks at memory before it sleeps. Each look gives the core away: to a rank that
// is waited for, if there are more ranks than cores. Spinning with `pause` instead is slower by far
// in a virtual machine, whose host takes the core away from it for 0.1 ms at a time.
constexpr std::int64_t kLookMaxNs = 2'000'000;
// While only memory is awaited, UCX has its turn once in so many looks.
constexpr int kLooksPerProgress = 16;

std::int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t EndOf(std::int64_t begin_ns, absl::Duration limit) {
  return begin_ns + absl::ToInt64Nanoseconds(std::min(limit, absl::Hours(1)));
}

}  // namespace

struct UcxGroup::Waiting {
  std::int64_t begin_ns = 0;
  std::int64_t end_ns = 0;
  std::int64_t now_ns = 0;
  int looks = 0;
};

const std::atomic<std::uint64_t>& UcxGroup::CountOf(std::int32_t source, ExchangePhase phase,
                                                    int lane) const {
  const Mailbox& inbox = InboxOf(source);
  if (phase == ExchangePhase::kStepBarrier) return inbox.openings;
  return phase == ExchangePhase::kDispatch ? inbox.lanes[lane].dispatches
                                           : inbox.combines[lane].count;
}

std::int64_t UcxGroup::TimeOf(std::int32_t source, ExchangePhase phase, int lane) const {
  const Mailbox& inbox = InboxOf(source);
  if (phase == ExchangePhase::kStepBarrier) return inbox.opened_ns;
  return phase == ExchangePhase::kDispatch ? inbox.lanes[lane].dispatched_ns
                                           : inbox.combines[lane].combined_ns;
}

absl::Status UcxGroup::WakeIfAsleep(std::int32_t rank, ExchangePhase phase) {
  Peer& peer = peers_[rank];
  if (!peer.connected) return absl::OkStatus();
  // The sleeper says that it sleeps and then looks at the count; we count and then look whether it
  // sleeps: one of us sees the other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::atomic<std::uint32_t>& asleep = peer.outbox->asleep;
  if (asleep.load(std::memory_order_relaxed) == 0 || asleep.exchange(0) == 0) {
    return absl::OkStatus();
  }
  BALEEN_RETURN_IF_ERROR(Claim(peer.wake_out, rank, phase));
  peer.wake_out.frame = NewFrame(FrameKind::kWake, rank);
  fabric_->Send(rank, peer.wake_out, {});
  return absl::OkStatus();
}

absl::Status UcxGroup::Send(std::int32_t rank, ExchangePhase phase, const ExchangeFrame& frame,
                            std::span<const std::byte> payload) {
  Peer& peer = peers_[rank];
  OutgoingMessage& message = phase == ExchangePhase::kStepBarrier
                                 ? peer.openings_out[frame.number % 2]
                             : phase == ExchangePhase::kDispatch ? peer.dispatches_out[frame.lane]
                                                                 : peer.combines_out[frame.lane];
  BALEEN_RETURN_IF_ERROR(Claim(message, rank, phase));
  message.frame = frame;
  fabric_->Send(rank, message, payload);
  return absl::OkStatus();
}

// Waits until UCX does not need `message` any more.
absl::Status UcxGroup::Claim(OutgoingMessage& message, std::int32_t rank, ExchangePhase phase) {
  if (!message.in_flight) return absl::OkStatus();
  const std::int64_t end_ns = EndOf(NowNs(), shape_.wait_max);
  while (message.in_flight) {
    if (fabric_->Progress()) continue;
    BALEEN_RETURN_IF_ERROR(Broken());
    if (peers_[rank].gone) return HasGone(rank, phase);
    const std::int64_t left_ns = end_ns - NowNs();
    if (left_ns <= 0) {
      return Break(absl::DeadlineExceededError(
                       fmt::format("all-to-all: waited {} for rank {} in the {}",
                                   absl::FormatDuration(shape_.wait_max), rank, NameOf(phase))),
                   Farewell::kPeerLate, rank);
    }
    fabric_->Wait(absl::Nanoseconds(left_ns));
  }
  return absl::OkStatus();
}

absl::Status UcxGroup::AwaitSent(ExchangePhase phase, int lane) {
  if (all_mapped_) return absl::OkStatus();
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    Peer& peer = peers_[rank];
    BALEEN_RETURN_IF_ERROR(Claim(
        phase == ExchangePhase::kDispatch ? peer.dispatches_out[lane] : peer.combines_out[lane],
        rank, phase));
  }
  return absl::OkStatus();
}

absl::Status UcxGroup::Await(ExchangePhase phase, int lane, std::uint64_t number) {
  Waiting waiting;
  waiting.begin_ns = waiting.now_ns = NowNs();
  waiting.end_ns = EndOf(waiting.begin_ns, shape_.wait_max);
  // A rank can be ahead of us with an opening only: all else needs our answer.
  const std::uint64_t most = number + (phase == ExchangePhase::kStepBarrier ? 1 : 0);
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    const std::atomic<std::uint64_t>& count = CountOf(rank, phase, lane);
    std::uint64_t seen = 0;
    while ((seen = count.load(std::memory_order_acquire)) < number) {
      BALEEN_RETURN_IF_ERROR(Broken());
      if (any_gone_) BALEEN_RETURN_IF_ERROR(CheckGone(phase, lane, number));
      if (waiting.now_ns >= waiting.end_ns) {
        return Break(absl::DeadlineExceededError(
                         fmt::format("all-to-all: waited {} for rank {} in the {}",
                                     absl::FormatDuration(shape_.wait_max), rank, NameOf(phase))),
                     Farewell::kPeerLate, rank);
      }
      Pause(waiting, rank, count, number);
    }
    if (seen > most) return Break(BreaksTheRules(rank, phase, "count", seen, {number, most}));
    if (options_.meter != nullptr && rank != self_.rank) {
      const std::int64_t waited_ns = TimeOf(rank, phase, lane) - waiting.begin_ns;
      const std::int64_t most_ns = waiting.now_ns - waiting.begin_ns;
      options_.meter->AddWait(phase, rank,
                              absl::Nanoseconds(std::clamp<std::int64_t>(waited_ns, 0, most_ns)));
    }
  }
  return absl::OkStatus();
}

// Nobody comes any more who has gone without having come.
absl::Status UcxGroup::CheckGone(ExchangePhase phase, int lane, std::uint64_t number) {
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    if (peers_[rank].gone && CountOf(rank, phase, lane).load(std::memory_order_acquire) < number) {
      return HasGone(rank, phase);
    }
  }
  return absl::OkStatus();
}

// Gives the peer time to count up to `number`.
void UcxGroup::Pause(Waiting& waiting, std::int32_t rank, const std::atomic<std::uint64_t>& count,
                     std::uint64_t number) {
  waiting.now_ns = NowNs();
  const bool in_memory = Mapped(rank);
  if (++waiting.looks % kLooksPerProgress == 0 || !all_mapped_) {
    if (fabric_->Progress()) return;
  }
  if (waiting.now_ns - waiting.begin_ns < kLookMaxNs) {
    sched_yield();
    return;
  }
  std::atomic<std::uint32_t>& asleep = InboxOf(rank).asleep;
  if (in_memory) asleep.store(1);
  if (count.load() < number) Sleep(absl::Nanoseconds(waiting.end_ns - waiting.now_ns));
  if (in_memory) asleep.store(0, std::memory_order_relaxed);
  waiting.now_ns = NowNs();
}

void UcxGroup::Sleep(absl::Duration limit) {
  if (fabric_->Progress()) return;
  fabric_->Wait(limit);
  while (fabric_->Progress()) {
  }
}

absl::StatusOr<bool> UcxGroup::AwaitPeers(absl::Duration limit) {
  const auto set_asleep = [&](std::uint32_t asleep) {
    for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
      if (rank != self_.rank) InboxOf(rank).asleep.store(asleep);
    }
  };
  const std::int64_t end_ns = EndOf(NowNs(), limit);
  while (true) {
    BALEEN_RETURN_IF_ERROR(Broken());
    set_asleep(1);
    bool waited_for = false;
    for (std::int32_t rank = 0; rank < shape_.ranks && !waited_for; ++rank) {
      waited_for = InboxOf(rank).openings.load() > expected_.openings;
    }
    const std::int64_t left_ns = end_ns - NowNs();
    const bool over = waited_for || interrupted_.exchange(false) || left_ns <= 0;
    if (!over && !any_gone_) Sleep(absl::Nanoseconds(left_ns));
    set_asleep(0);
    if (over) return waited_for;
    if (!any_gone_) continue;
    BALEEN_RETURN_IF_ERROR(
        CheckGone(ExchangePhase::kStepBarrier, 0, std::numeric_limits<std::uint64_t>::max()));
  }
}

void UcxGroup::Interrupt() {
  interrupted_ = true;
  fabric_->Signal();
}

void UcxGroup::Abort(const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    if (aborted_.ok()) aborted_ = why;
  }
  is_aborted_ = true;
  fabric_->Signal();
}

absl::Status UcxGroup::Broken() {
  if (!broken_.ok()) return broken_;
  if (is_aborted_) {
    const std::lock_guard lock(mutex_);
    return Break(aborted_);
  }
  if (!violation_.ok()) return Break(violation_);
  return absl::OkStatus();
}

absl::Status UcxGroup::Break(const absl::Status& why, Farewell farewell, std::int32_t culprit) {
  broken_ = why;
  SayGoodbye(farewell, culprit);
  return why;
}

void UcxGroup::SayGoodbye(Farewell farewell, std::int32_t culprit) {
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    Peer& peer = peers_[rank];
    if (!peer.connected || peer.goodbye_out.in_flight) continue;
    peer.goodbye_out.frame = NewFrame(FrameKind::kGoodbye, rank);
    peer.goodbye_out.frame.farewell = farewell;
    peer.goodbye_out.frame.culprit = culprit;
    fabric_->Send(rank, peer.goodbye_out, {});
  }
}

absl::Status UcxGroup::HasGone(std::int32_t rank, ExchangePhase phase) {
  const Peer& peer = peers_[rank];
  const std::string waited = absl::FormatDuration(shape_.wait_max);
  if (peer.farewell == Farewell::kPeerLate && peer.culprit == self_.rank) {
    return Break(absl::UnavailableError(
        fmt::format("all-to-all: rank {} has gone, in the {}: it waited {} for this rank {}", rank,
                    NameOf(phase), waited, self_.rank)));
  }
  if (peer.farewell == Farewell::kPeerLate) {
    return Break(absl::DeadlineExceededError(
                     fmt::format("all-to-all: rank {} waited {} for rank {}, heard in the {}", rank,
                                 waited, peer.culprit, NameOf(phase))),
                 Farewell::kPeerLate, peer.culprit);
  }
  const bool told = peer.farewell == Farewell::kPeerGone && peer.culprit != self_.rank;
  const std::int32_t gone = told ? peer.culprit : rank;
  return Break(absl::UnavailableError(
                   fmt::format("all-to-all: rank {} has gone, in the {}", gone, NameOf(phase))),
               Farewell::kPeerGone, gone);
}

}  // namespace baleen::worker
