// What a person sees while weights are read: a bar on a terminal, lines in a log.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "observability/base/clock.h"

namespace baleen::worker {

// Decides when there is something to show, and what; shows nothing itself.
class LoadProgress {
 public:
  enum class Form : std::uint8_t {
    kBar,   // redrawn in place ten times a second at most, ended by a newline
    kLines  // after every tenth, or every 5 s, a second apart at least; and at the end
  };

  // Times are of Clock::Monotonic.
  LoadProgress(Form form, absl::Duration start) : form_(form), start_(start) {}

  // `done` of `total` bytes are read at `now`. Empty: nothing to show.
  std::string Update(std::uint64_t done, std::uint64_t total, absl::Duration now);

 private:
  bool Due(std::uint64_t percent, absl::Duration now) const;

  const Form form_;
  const absl::Duration start_;
  absl::Duration shown_at_ = -absl::InfiniteDuration();
  std::uint64_t shown_percent_ = 0;
};

// For ModelOptions::progress of a process: a bar on stderr if that is a terminal, else log lines.
// `clock` outlives the function.
std::function<void(std::uint64_t done, std::uint64_t total)> ShowLoadProgress(const Clock& clock);

}  // namespace baleen::worker
