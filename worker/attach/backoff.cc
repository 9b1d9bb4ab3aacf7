#include "worker/attach/backoff.h"

#include <algorithm>

namespace baleen::worker {

absl::Duration Backoff::Next(double random) {
  const absl::Duration base = std::min(next_, options_.longest);
  next_ = std::min(base * options_.growth, options_.longest);
  return base * (1.0 + options_.spread * (2.0 * random - 1.0));
}

}  // namespace baleen::worker
