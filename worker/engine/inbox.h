// The only door into the engine: a bounded queue of commands from many threads to one.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/messages.h"
#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// The engine empties the inbox at the top of each step, so these bound what can arrive during one
// step.
struct InboxLimits {
  // A Start carries its prompt, at most 640 kB of ids: 256 of them hold at most 164 MB.
  std::size_t starts_max = 256;
  // Cancels and releases: tiny, and worth taking even when starts are refused.
  std::size_t controls_max = 4096;
};

class Inbox {
 public:
  explicit Inbox(InboxLimits limits) : limits_(limits) {}

  // Any thread. Refused with Reason::kQueueFull when there is no room, and the command is dropped.
  // DrainCommand and LinkLostCommand are always taken. A Drain that is here already says it all, so
  // one is kept; a link sends LinkLost once, so their number is bounded by the links.
  absl::Status Push(Command command);

  // Any thread: ends the current or the next wait.
  void Wake();

  // The engine's thread: everything since the last call, in order of arrival.
  std::vector<Command> Take();

  // The engine's thread: returns when a command is there, after Wake, or after `limit`.
  void WaitFor(absl::Duration limit);

  // The same, but sleeping in `barrier`: returns also when a peer has opened a step. True if a peer
  // has; errors of AwaitPeers.
  absl::StatusOr<bool> WaitIn(StepBarrier& barrier, absl::Duration limit);

 private:
  void EndWait();  // under the mutex

  const InboxLimits limits_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  // Guarded by mutex_:
  std::vector<Command> commands_;
  std::size_t starts_ = 0;
  std::size_t controls_ = 0;
  bool has_drain_ = false;
  bool woken_ = false;
  StepBarrier* sleeping_in_ = nullptr;
};

}  // namespace baleen::worker
