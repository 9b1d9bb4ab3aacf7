// How long to wait before dialling again: grows, is bounded, and is spread so that workers do not
// dial in step.
#pragma once

#include "absl/time/time.h"

namespace baleen::worker {

struct BackoffOptions {
  absl::Duration first = absl::Milliseconds(50);
  absl::Duration longest = absl::Seconds(2);  // before the spread
  double growth = 2.0;
  double spread = 0.25;  // waits lie within +- this share
};

class Backoff {
 public:
  explicit Backoff(const BackoffOptions& options) : options_(options), next_(options.first) {}

  // `random` in [0, 1) picks the place within the spread.
  absl::Duration Next(double random);

  // After a success.
  void Reset() { next_ = options_.first; }

 private:
  const BackoffOptions options_;
  absl::Duration next_;
};

}  // namespace baleen::worker
