// Reads how much memory is used now and then, and does what the ladder says.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "router/admission/admission.h"
#include "router/admission/memory_ladder.h"

namespace baleen::router {

struct MemoryWatchOptions {
  std::uint64_t limit_bytes = 0;  // 0: no limit
  absl::Duration period = absl::Milliseconds(250);
  std::function<std::uint64_t()> resident_bytes = ResidentBytes;
};

// One thread; its admission is anybody's.
class MemoryWatch {
 public:
  // `cancel_some` ends some of the requests inside; called at each reading on the ladder's last
  // step. `admission` and `clock` are borrowed.
  MemoryWatch(const MemoryWatchOptions& options, const Clock& clock, Admission& admission,
              std::function<void()> cancel_some);

  // To be called often; reads once a period.
  void Tick();

  MemoryLevel level() const { return level_; }

 private:
  const MemoryWatchOptions options_;
  const Clock& clock_;
  Admission& admission_;
  const std::function<void()> cancel_some_;
  absl::Duration next_ = -absl::InfiniteDuration();
  MemoryLevel level_ = MemoryLevel::kNormal;
};

}  // namespace baleen::router
