#include "router/cluster/event_loop.h"

#include <grpc/support/time.h>

#include "observability/base/check.h"

namespace baleen::router {

EventLoop::EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : queue_(std::move(queue)), wake_([this](bool) { TakePosted(); }) {}

void EventLoop::Post(absl::AnyInvocable<void()> work) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  posted_.push_back(std::move(work));
  if (waking_) return;
  waking_ = true;
  alarm_.Set(queue_.get(), gpr_time_0(GPR_CLOCK_MONOTONIC), &wake_);
}

void EventLoop::TakePosted() {
  std::vector<absl::AnyInvocable<void()>> taken;
  {
    const std::lock_guard lock(mutex_);
    waking_ = false;
    taken.swap(posted_);
  }
  for (auto& work : taken) work();
}

void EventLoop::Run(absl::Duration period, absl::AnyInvocable<void()> tick) {
  const gpr_timespec step = gpr_time_from_micros(absl::ToInt64Microseconds(period), GPR_TIMESPAN);
  gpr_timespec next_tick = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), step);
  for (;;) {
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_->AsyncNext(&tag, &ok, next_tick);
    if (next == grpc::CompletionQueue::SHUTDOWN) return;
    if (next == grpc::CompletionQueue::GOT_EVENT) static_cast<Tag*>(tag)->Done(ok);
    // By the clock, not by the queue's time-outs: a busy queue has none.
    if (const gpr_timespec now = gpr_now(GPR_CLOCK_MONOTONIC); gpr_time_cmp(now, next_tick) >= 0) {
      next_tick = gpr_time_add(now, step);
      tick();
    }
  }
}

void EventLoop::Close() {
  const std::lock_guard lock(mutex_);
  BALEEN_CHECK(!closed_, "a loop is closed once");
  closed_ = true;
  queue_->Shutdown();
}

}  // namespace baleen::router
