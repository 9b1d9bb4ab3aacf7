#include "router/access/token_budget.h"

#include <algorithm>
#include <utility>

namespace baleen::router {

std::optional<absl::Duration> TokenBudget::Charge(const Caller& caller, std::uint64_t tokens) {
  if (caller.tokens_per_minute == 0) return std::nullopt;
  const auto per_minute = static_cast<double>(caller.tokens_per_minute);
  const auto wanted = static_cast<double>(tokens);
  const std::lock_guard lock(mutex_);
  if (buckets_.size() >= drop_at_) DropFullLocked();
  const auto [it, is_new] = buckets_.try_emplace(
      caller.tenant,
      Bucket{.tokens = per_minute, .per_minute = per_minute, .filled_at = clock_.Monotonic()});
  Bucket& bucket = it->second;
  if (!is_new) FillLocked(bucket, per_minute);
  const double missing = std::min(wanted, per_minute) - bucket.tokens;
  if (missing > 0) return absl::Minutes(missing / per_minute);
  bucket.tokens -= wanted;
  return std::nullopt;
}

void TokenBudget::Refund(const Caller& caller, std::uint64_t tokens) {
  if (caller.tokens_per_minute == 0 || tokens == 0) return;
  const std::lock_guard lock(mutex_);
  const auto it = buckets_.find(caller.tenant);
  if (it == buckets_.end()) return;  // it was full
  FillLocked(it->second, it->second.per_minute);
  it->second.tokens =
      std::min(it->second.tokens + static_cast<double>(tokens), it->second.per_minute);
}

std::size_t TokenBudget::buckets() const {
  const std::lock_guard lock(mutex_);
  return buckets_.size();
}

// With the rate of the time that has passed; a new rate counts from now on.
void TokenBudget::FillLocked(Bucket& bucket, double per_minute) const {
  const absl::Duration now = clock_.Monotonic();
  const double minutes = absl::ToDoubleMinutes(now - bucket.filled_at);
  bucket.tokens = std::min(bucket.tokens + minutes * bucket.per_minute, per_minute);
  bucket.per_minute = per_minute;
  bucket.filled_at = now;
}

// A full bucket is what a tenant without one begins with.
void TokenBudget::DropFullLocked() {
  for (auto it = buckets_.begin(); it != buckets_.end();) {
    const auto entry = it++;
    FillLocked(entry->second, entry->second.per_minute);
    if (entry->second.tokens >= entry->second.per_minute) buckets_.erase(entry);
  }
  drop_at_ = std::max<std::size_t>(64, 2 * buckets_.size());
}

}  // namespace baleen::router
