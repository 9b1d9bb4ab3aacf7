#include "router/admission/memory_watch.h"

#include <malloc.h>

#include <utility>

#include "observability/base/log.h"

namespace baleen::router {

MemoryWatch::MemoryWatch(const MemoryWatchOptions& options, const Clock& clock,
                         Admission& admission, std::function<void()> cancel_some)
    : options_(options),
      clock_(clock),
      admission_(admission),
      cancel_some_(std::move(cancel_some)) {}

void MemoryWatch::Tick() {
  const absl::Duration now = clock_.Monotonic();
  if (options_.limit_bytes == 0 || now < next_) return;
  next_ = now + options_.period;
  const MemoryReading reading{.accounted_bytes = admission_.accounted_bytes(),
                              .resident_bytes = options_.resident_bytes()};
  const MemoryLevel level = LevelOf(reading, options_.limit_bytes);
  if (level != level_) {
    log::Warning("memory", {{"level", ToString(level)},
                            {"accounted_bytes", reading.accounted_bytes},
                            {"resident_bytes", reading.resident_bytes},
                            {"limit_bytes", options_.limit_bytes}});
  }
  level_ = level;
  admission_.SetMemoryLevel(level);
  if (level == MemoryLevel::kCancel) cancel_some_();
  // What was freed stays resident until the allocator is told to give it back: the ladder would
  // never be climbed down.
  if (level != MemoryLevel::kNormal) malloc_trim(0);
}

}  // namespace baleen::router
