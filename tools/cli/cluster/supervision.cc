#include "tools/cli/cluster/supervision.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "observability/base/check.h"

namespace baleen::cli {

Supervision::Supervision(std::vector<ChildSpec> children, const SupervisionLimits& limits,
                         const Clock& clock)
    : specs_(std::move(children)), limits_(limits), clock_(clock), children_(specs_.size()) {
  BALEEN_CHECK(!specs_.empty() && specs_[0].kind == ChildKind::kRouter, "the router comes first");
}

std::vector<Action> Supervision::Handle(const Event& event) {
  BALEEN_CHECK(phase_ != Phase::kDone, "nothing happens after Finish");
  std::visit([this](const auto& e) { On(e); }, event);
  return std::exchange(actions_, {});
}

absl::Duration Supervision::NextDeadline() const {
  absl::Duration next = phase_deadline_;
  for (const Child& child : children_) {
    if (child.state == State::kWaiting) next = std::min(next, child.restart_at);
    if (child.state == State::kRunning && phase_ == Phase::kAnnounced) {
      next = std::min(next, child.ready_by);
    }
  }
  return next;
}

void Supervision::On(const Begin&) {
  phase_deadline_ = clock_.Monotonic() + limits_.ready_within;
  Launch(0);
}

void Supervision::On(const ChildReady& event) {
  Child& child = children_[event.child];
  if (Stopping() || child.state != State::kRunning) return;
  child.state = State::kReady;
  child.ready_at = clock_.Monotonic();
  child.was_ready = true;
  if (event.child == 0) {
    for (ChildIndex i = 1; i < children_.size(); ++i) {
      if (children_[i].state == State::kIdle) Launch(i);
    }
  }
  if (!probing_ && AllReady()) {
    probing_ = true;
    actions_.emplace_back(BeginProbe{});
  }
}

void Supervision::On(const ChildEnded& event) {
  Child& child = children_[event.child];
  if (Stopping()) {
    child.state = State::kEnded;
    if (!event.clean && phase_ != Phase::kKilling && result_.ok()) {
      result_ = absl::InternalError(
          fmt::format("{} did not stop in order: {}", specs_[event.child].name, event.why));
    }
    AdvanceStop();
    return;
  }
  if (phase_ == Phase::kStarting && !child.was_ready) {
    child.state = State::kEnded;
    Fail(absl::UnavailableError(fmt::format("{}: {}", specs_[event.child].name, event.why)));
    return;
  }
  Restart(event.child, event.why);
}

void Supervision::On(const ClusterAnswers&) {
  if (phase_ != Phase::kStarting) return;
  phase_ = Phase::kAnnounced;
  phase_deadline_ = absl::InfiniteDuration();
  actions_.emplace_back(Announce{});
}

void Supervision::On(const StopRequested&) {
  if (!Stopping()) {
    StopRouter();
  } else if (phase_ != Phase::kKilling) {
    KillAll();
  }
}

void Supervision::On(const TimePassed&) {
  const absl::Duration now = clock_.Monotonic();
  if (now >= phase_deadline_) {
    switch (phase_) {
      case Phase::kStarting:
        Fail(absl::DeadlineExceededError(fmt::format("the cluster is not ready after {:.0f} s: {}",
                                                     absl::ToDoubleSeconds(limits_.ready_within),
                                                     WhatIsMissing())));
        return;
      case Phase::kStoppingRouter:
      case Phase::kStoppingWorkers:
        KillAll();
        return;
      case Phase::kKilling:
        result_ = absl::InternalError("a killed process does not end; giving it up");
        End();
        return;
      case Phase::kAnnounced:
      case Phase::kDone:
        break;
    }
  }
  if (!Stopping()) ServeChildDeadlines(now);
}

void Supervision::ServeChildDeadlines(absl::Duration now) {
  for (ChildIndex i = 0; i < children_.size(); ++i) {
    Child& child = children_[i];
    if (child.state == State::kWaiting && now >= child.restart_at) {
      Launch(i);
    } else if (child.state == State::kRunning && phase_ == Phase::kAnnounced &&
               now >= child.ready_by) {
      child.ready_by = now + limits_.ready_within;
      actions_.emplace_back(SignalChild{i, SIGKILL});  // its end brings the restart
    }
  }
}

bool Supervision::Alive(ChildIndex child) const {
  return children_[child].state == State::kRunning || children_[child].state == State::kReady;
}

bool Supervision::AllReady() const {
  return std::all_of(children_.begin(), children_.end(),
                     [](const Child& child) { return child.state == State::kReady; });
}

void Supervision::Launch(ChildIndex child) {
  children_[child].state = State::kRunning;
  // The ranks of a group are ready together, so each that starts gives those that wait for it the
  // time to wait.
  for (ChildIndex i = 0; i < children_.size(); ++i) {
    if (i == child || SameGroup(i, child)) {
      children_[i].ready_by = clock_.Monotonic() + limits_.ready_within;
    }
  }
  actions_.emplace_back(LaunchChild{child});
}

bool Supervision::SameGroup(ChildIndex a, ChildIndex b) const {
  return !specs_[a].leader.empty() && specs_[a].leader == specs_[b].leader;
}

void Supervision::Restart(ChildIndex index, const std::string& why) {
  Child& child = children_[index];
  const absl::Duration now = clock_.Monotonic();
  const bool stable = child.state == State::kReady && now - child.ready_at >= limits_.stable_after;
  child.delay = stable || child.delay == absl::ZeroDuration()
                    ? limits_.restart_first
                    : std::min(child.delay * 2, limits_.restart_max);
  child.state = State::kWaiting;
  child.restart_at = now + child.delay;
  actions_.emplace_back(RestartLater{index, child.delay, why});
}

void Supervision::Fail(absl::Status status) {
  result_ = std::move(status);
  // Nobody has been served yet, so there is nothing to drain: end at once.
  KillAll();
}

void Supervision::StopRouter() {
  for (Child& child : children_) {
    if (child.state == State::kWaiting || child.state == State::kIdle) child.state = State::kEnded;
  }
  // The router drains while the workers still compute for it.
  phase_ = Phase::kStoppingRouter;
  phase_deadline_ = clock_.Monotonic() + limits_.drain + limits_.kill_after;
  if (Alive(0)) actions_.emplace_back(SignalChild{0, SIGTERM});
  AdvanceStop();
}

void Supervision::StopWorkers() {
  phase_ = Phase::kStoppingWorkers;
  phase_deadline_ = clock_.Monotonic() + limits_.drain + limits_.kill_after;
  for (ChildIndex i = 1; i < children_.size(); ++i) {
    if (Alive(i)) actions_.emplace_back(SignalChild{i, SIGTERM});
  }
}

void Supervision::KillAll() {
  phase_ = Phase::kKilling;
  phase_deadline_ = clock_.Monotonic() + limits_.reap_within;
  for (ChildIndex i = 0; i < children_.size(); ++i) {
    if (Alive(i)) {
      actions_.emplace_back(SignalChild{i, SIGKILL});
    } else {
      children_[i].state = State::kEnded;
    }
  }
  AdvanceStop();
}

// Moves on when the children of the current stage have ended.
void Supervision::AdvanceStop() {
  if (phase_ == Phase::kStoppingRouter && !Alive(0)) StopWorkers();
  const bool all_ended = std::all_of(children_.begin(), children_.end(), [](const Child& child) {
    return child.state == State::kEnded;
  });
  if (all_ended && phase_ != Phase::kDone) End();
}

void Supervision::End() {
  phase_ = Phase::kDone;
  phase_deadline_ = absl::InfiniteDuration();
  actions_.emplace_back(Finish{result_});
}

std::string Supervision::WhatIsMissing() const {
  constexpr std::size_t kNamesMax = 4;
  std::vector<std::string_view> names;
  for (ChildIndex i = 0; i < children_.size(); ++i) {
    if (children_[i].state == State::kWaiting) {
      return fmt::format("{} keeps ending", specs_[i].name);
    }
    if (children_[i].state == State::kRunning) names.push_back(specs_[i].name);
  }
  if (names.empty()) return "the router does not say that the model is ready";
  const std::size_t more = names.size() - std::min(names.size(), kNamesMax);
  const bool one = names.size() == 1;
  names.resize(names.size() - more);
  return fmt::format("{}{} {} not come up", fmt::join(names, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "", one ? "has" : "have");
}

}  // namespace baleen::cli
