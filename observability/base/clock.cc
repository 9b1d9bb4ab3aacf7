#include "observability/base/clock.h"

#include <chrono>

#include "absl/time/clock.h"
#include "observability/base/check.h"

namespace baleen {
namespace {

class RealClock final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  absl::Time Wall() const override { return absl::Now(); }
};

}  // namespace

const Clock& SystemClock() {
  static const RealClock clock;
  return clock;
}

absl::Duration ManualClock::Monotonic() const {
  std::lock_guard lock(mutex_);
  return elapsed_;
}

absl::Time ManualClock::Wall() const { return absl::UnixEpoch() + Monotonic(); }

void ManualClock::Advance(absl::Duration step) {
  BALEEN_CHECK(step >= absl::ZeroDuration(), "a clock never goes backwards");
  std::lock_guard lock(mutex_);
  elapsed_ += step;
}

}  // namespace baleen
