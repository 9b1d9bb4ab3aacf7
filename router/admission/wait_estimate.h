// How long a request that comes now would wait, and then take, from what was measured of those
// before it. Pure arithmetic on times that it is told.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace baleen::router {

// One thread. One for each queue. Times do not go back.
class WaitEstimate {
 public:
  // A request has been started that had waited. `work` as in FairQueue::Waiting.
  void Started(absl::Duration now, std::uint64_t work);
  // From now on somebody waits, or nobody does. To be called whenever that may have changed.
  void SetBacklogged(absl::Duration now, bool backlogged);
  // A reply has finished as it should.
  void Finished(absl::Duration to_first_token, absl::Duration total, std::uint32_t tokens);

  // Until `work_before` has been started, at the rate of the last seconds in which somebody waited.
  // nullopt: too few have been started in them to tell; room comes in bursts, so they must span the
  // usual run twice.
  std::optional<absl::Duration> Wait(absl::Duration now, std::uint64_t work_before) const;
  // From start to end, for a reply of the usual length or `tokens_max`; zero before any has
  // finished.
  absl::Duration Run(std::uint32_t tokens_max) const;
  // For how long there has been somebody waiting all the time; zero: nobody waits.
  absl::Duration BackloggedFor(absl::Duration now) const {
    return backlogged_ ? now - backlogged_since_ : absl::ZeroDuration();
  }

 private:
  // Sums of which a part of the past is forgotten every second.
  struct Sums {
    double work = 0.0;
    double starts = 0.0;
    double backlogged_s = 0.0;
  };
  Sums At(absl::Duration now) const;

  Sums sums_;
  absl::Duration updated_;
  bool backlogged_ = false;
  absl::Duration backlogged_since_;

  bool has_finished_ = false;
  double first_token_s_ = 0.0;
  double later_token_s_ = 0.0;
  double tokens_ = 0.0;
};

}  // namespace baleen::router
