// Time as a seam: production reads the system, tests turn a ManualClock by hand, so that no test
// sleeps.
#pragma once

#include <mutex>

#include "absl/time/time.h"

namespace baleen {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  // Never goes backwards; only differences mean anything. For deadlines, leases and latencies.
  virtual absl::Duration Monotonic() const = 0;
  // Wall-clock time; may jump. For log lines and timestamps shown to people.
  virtual absl::Time Wall() const = 0;
};

// The process-wide system clock.
const Clock& SystemClock();

// A clock that stands still until it is told to advance.
class ManualClock final : public Clock {
 public:
  absl::Duration Monotonic() const override;
  absl::Time Wall() const override;
  // Moves both readings forward by `step` (>= 0).
  void Advance(absl::Duration step);

 private:
  mutable std::mutex mutex_;
  absl::Duration elapsed_ = absl::ZeroDuration();
};

}  // namespace baleen
