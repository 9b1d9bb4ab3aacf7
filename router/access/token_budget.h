// How many tokens a minute each tenant may use: one bucket a tenant, which holds a minute's tokens
// and fills all the time.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "router/access/caller.h"

namespace baleen::router {

// Thread-safe.
class TokenBudget {
 public:
  // `clock` is borrowed.
  explicit TokenBudget(const Clock& clock) : clock_(clock) {}

  // Takes prompt and longest reply from the caller's tenant, before the request is admitted.
  // nullopt: taken. Else nothing is taken, and that is how long until there will be enough: refuse
  // with kRateLimited and this as the hint. A request for more than a minute's tokens is taken when
  // the bucket is full, and the tenant waits until its debt is paid.
  std::optional<absl::Duration> Charge(const Caller& caller, std::uint64_t tokens);

  // Gives back what a request did not use, when it ends, or all of it when it is not admitted.
  void Refund(const Caller& caller, std::uint64_t tokens);

  // Buckets held: those of tenants whose bucket is not full. For tests.
  std::size_t buckets() const;

 private:
  struct Bucket {
    double tokens = 0;      // negative: debt
    double per_minute = 0;  // what it is filled with
    absl::Duration filled_at;
  };

  void FillLocked(Bucket& bucket, double per_minute) const;
  void DropFullLocked();

  const Clock& clock_;
  mutable std::mutex mutex_;
  // Guarded by mutex_:
  std::map<std::string, Bucket> buckets_;  // by tenant
  std::size_t drop_at_ = 64;               // look for full ones when there are so many
};

}  // namespace baleen::router
