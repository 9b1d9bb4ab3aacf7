// Signals as readable descriptors, so that one poll loop serves them next to everything else.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/cli/cluster/descriptor.h"

namespace baleen::cli {

// The signals with which a person, a terminal or a supervisor ends a program.
std::vector<int> StopSignals();

// Blocks the stop signals and SIGCHLD in this thread and in those it starts later, and ignores
// SIGPIPE (a closed reader becomes a write error). Call first thing in main: a thread that does not
// block a signal would be killed by it.
void BlockSignals();

// Delivers some of the blocked signals. Give each signal to one SignalDescriptor only.
class SignalDescriptor {
 public:
  static absl::StatusOr<SignalDescriptor> Create(const std::vector<int>& signals);

  // Readable when a signal is pending.
  int number() const { return descriptor_.number(); }
  // The next pending signal; nullopt when there is none. Never blocks.
  std::optional<int> Take();

 private:
  explicit SignalDescriptor(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  Descriptor descriptor_;
};

// Wakes a poll loop from another thread.
class WakeUp {
 public:
  static absl::StatusOr<WakeUp> Create();

  int number() const { return descriptor_.number(); }
  void Set();
  // Makes it unreadable again; whether it was set.
  bool Clear();

 private:
  explicit WakeUp(Descriptor descriptor) : descriptor_(std::move(descriptor)) {}

  Descriptor descriptor_;
};

}  // namespace baleen::cli
