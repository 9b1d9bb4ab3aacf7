// Every decision of the supervisor, without its effects: which child to start, signal or restart,
// when to announce and when to give up. Events go in, actions come out; the loop in supervisor.cc
// carries them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "tools/cli/cluster/spec/cluster_spec.h"

namespace baleen::cli {

struct SupervisionLimits {
  // The cluster from its start, a child from its restart; a rank from the restart of any of its
  // group.
  absl::Duration ready_within = absl::Seconds(60);
  absl::Duration restart_first = absl::Milliseconds(100);
  absl::Duration restart_max =
      absl::Seconds(5);  // the delay doubles with each death in a row up to this
  absl::Duration stable_after =
      absl::Seconds(10);  // a child that was up this long starts again at restart_first
  absl::Duration drain = absl::Seconds(10);       // children end by themselves within this
  absl::Duration kill_after = absl::Seconds(2);   // past the drain, they are killed
  absl::Duration reap_within = absl::Seconds(5);  // a killed child that does not end is given up
};

using ChildIndex = std::size_t;  // into ChildrenOf(spec); 0 = the router

// Events.
struct Begin {};
struct ChildReady {
  ChildIndex child = 0;
};
struct ChildEnded {
  ChildIndex child = 0;
  std::string why;     // the error it printed, else how it ended
  bool clean = false;  // as it should when it is told to stop
};
struct ClusterAnswers {};  // all workers are attached and the model is ready
struct StopRequested {};   // a second one kills
struct TimePassed {};
using Event =
    std::variant<Begin, ChildReady, ChildEnded, ClusterAnswers, StopRequested, TimePassed>;

// Actions.
struct LaunchChild {
  ChildIndex child = 0;
};
struct SignalChild {
  ChildIndex child = 0;
  int number = 0;
};
struct RestartLater {  // only to be told to the user; LaunchChild follows
  ChildIndex child = 0;
  absl::Duration delay;
  std::string why;
};
struct BeginProbe {};  // find out when the cluster answers
struct Announce {};
struct Finish {  // every child has ended, or is given up
  absl::Status status;
};
using Action = std::variant<LaunchChild, SignalChild, RestartLater, BeginProbe, Announce, Finish>;

// One thread. Precondition of every event: Begin came first, and nothing after Finish.
class Supervision {
 public:
  Supervision(std::vector<ChildSpec> children, const SupervisionLimits& limits, const Clock& clock);

  std::vector<Action> Handle(const Event& event);

  // When TimePassed is due, as Clock::Monotonic; infinite = never.
  absl::Duration NextDeadline() const;

 private:
  enum class State : std::uint8_t { kIdle, kRunning, kReady, kWaiting, kEnded };

  struct Child {
    State state = State::kIdle;
    bool was_ready = false;     // in any of its lives
    absl::Duration ready_by;    // in state kRunning: else it is killed
    absl::Duration ready_at;    // in state kReady
    absl::Duration restart_at;  // in state kWaiting
    absl::Duration delay;       // before the last restart; zero = none yet
  };

  enum class Phase : std::uint8_t {
    kStarting,
    kAnnounced,
    kStoppingRouter,
    kStoppingWorkers,
    kKilling,
    kDone
  };

  void On(const Begin&);
  void On(const ChildReady& event);
  void On(const ChildEnded& event);
  void On(const ClusterAnswers&);
  void On(const StopRequested&);
  void On(const TimePassed&);

  bool Stopping() const { return phase_ >= Phase::kStoppingRouter; }
  bool Alive(ChildIndex child) const;
  bool AllReady() const;
  bool SameGroup(ChildIndex a, ChildIndex b) const;
  void Launch(ChildIndex child);
  void Restart(ChildIndex child, const std::string& why);
  void Fail(absl::Status status);
  void StopRouter();
  void StopWorkers();
  void KillAll();
  void AdvanceStop();
  void End();
  void ServeChildDeadlines(absl::Duration now);
  std::string WhatIsMissing() const;

  const std::vector<ChildSpec> specs_;
  const SupervisionLimits limits_;
  const Clock& clock_;
  std::vector<Child> children_;
  Phase phase_ = Phase::kStarting;
  bool probing_ = false;
  absl::Duration phase_deadline_ = absl::InfiniteDuration();
  absl::Status result_;
  std::vector<Action> actions_;
};

}  // namespace baleen::cli
