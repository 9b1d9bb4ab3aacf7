#include "router/admission/admission.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proto/contract/status.h"

namespace baleen::router {
namespace {

using contract::MakeStatus;
using contract::Reason;

constexpr absl::Duration kRetryAfterMin = absl::Milliseconds(50);
constexpr absl::Duration kRetryAfterMax = absl::Seconds(10);
// Weight of the newest stay in the average: the last twenty or so decide.
constexpr double kNewestWeight = 0.1;

}  // namespace

Admission::Ticket::Ticket(Ticket&& other) noexcept
    : home_(std::exchange(other.home_, nullptr)),
      bytes_(other.bytes_),
      tenant_(std::move(other.tenant_)),
      since_(other.since_) {}

Admission::Ticket& Admission::Ticket::operator=(Ticket&& other) noexcept {
  std::swap(home_, other.home_);
  std::swap(bytes_, other.bytes_);
  std::swap(tenant_, other.tenant_);
  std::swap(since_, other.since_);
  return *this;
}

Admission::Ticket::~Ticket() {
  if (home_ != nullptr) home_->Leave(*this);
}

Admission::Admission(const AdmissionOptions& options, const Clock& clock)
    : options_(options), clock_(clock) {}

absl::StatusOr<Admission::Ticket> Admission::Admit(const AdmissionRequest& request) {
  const absl::Duration now = clock_.Monotonic();
  const std::lock_guard lock(mutex_);
  if (!admitting_) return MakeStatus(Reason::kDraining, "this router is shutting down");
  if (asked_latest_ != request.tenant) {
    asked_by_others_ = asked_latest_at_;
    asked_latest_ = std::string(request.tenant);
  }
  asked_latest_at_ = now;
  if (const std::optional<std::string> obstacle = ObstacleLocked(request)) {
    return MakeStatus(Reason::kQueueFull,
                      fmt::format("{}; retry after {} ms", *obstacle,
                                  absl::ToInt64Milliseconds(RetryAfterLocked())));
  }
  ++requests_;
  bytes_ += request.bytes;
  Share& share = shares_[std::string(request.tenant)];
  ++share.requests;
  share.bytes += request.bytes;
  return Ticket(this, request, now);
}

std::optional<std::string> Admission::ObstacleLocked(const AdmissionRequest& request) const {
  if (memory_level_ >= MemoryLevel::kRefuseAll) {
    return "this router is short of memory and takes no requests";
  }
  if (memory_level_ == MemoryLevel::kRefuseLow && request.priority < contract::kPriorityDefault) {
    return fmt::format("this router is short of memory and takes no requests below priority {}",
                       contract::kPriorityDefault);
  }
  if (requests_ >= options_.requests_max) {
    return fmt::format("{} requests are inside, limit {}", requests_, options_.requests_max);
  }
  const std::uint64_t bytes_free = options_.bytes_max - std::min(bytes_, options_.bytes_max);
  if (request.bytes > bytes_free) {
    return fmt::format("{} bytes of requests are inside, {} more exceed the limit of {}", bytes_,
                       request.bytes, options_.bytes_max);
  }
  const auto share = shares_.find(std::string(request.tenant));
  if (share == shares_.end() || !OthersAreAboutLocked(request.tenant)) return std::nullopt;
  const std::uint64_t free = options_.requests_max - requests_;
  if (share->second.requests >= kSharePerFree * free) {
    return fmt::format("{} requests of this tenant are inside, {} places are left for all",
                       share->second.requests, free);
  }
  if (share->second.bytes / kSharePerFree >= bytes_free) {
    return fmt::format("{} bytes of requests of this tenant are inside, {} are left for all",
                       share->second.bytes, bytes_free);
  }
  return std::nullopt;
}

bool Admission::OthersAreAboutLocked(std::string_view tenant) const {
  const bool others_are_inside = shares_.size() > (shares_.contains(std::string(tenant)) ? 1u : 0u);
  return others_are_inside || clock_.Monotonic() - asked_by_others_ < kTenantAbout;
}

void Admission::Leave(const Ticket& ticket) {
  const double stay_s = absl::ToDoubleSeconds(clock_.Monotonic() - ticket.since_);
  const std::lock_guard lock(mutex_);
  --requests_;
  bytes_ -= ticket.bytes_;
  const auto share = shares_.find(ticket.tenant_);
  share->second.bytes -= ticket.bytes_;
  if (--share->second.requests == 0) shares_.erase(share);
  mean_stay_s_ += kNewestWeight * (stay_s - mean_stay_s_);
}

void Admission::SetMemoryLevel(MemoryLevel level) {
  const std::lock_guard lock(mutex_);
  memory_level_ = level;
}

std::uint64_t Admission::accounted_bytes() const {
  const std::int64_t replies = reply_bytes_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  return bytes_ + static_cast<std::uint64_t>(std::max<std::int64_t>(replies, 0));
}

void Admission::StopAdmitting() {
  const std::lock_guard lock(mutex_);
  admitting_ = false;
}

std::size_t Admission::admitted() const {
  const std::lock_guard lock(mutex_);
  return requests_;
}

absl::Duration Admission::RetryAfter() const {
  const std::lock_guard lock(mutex_);
  return RetryAfterLocked();
}

absl::Duration Admission::RetryAfterLocked() const {
  const absl::Duration next_leaves =
      absl::Seconds(mean_stay_s_ / std::max<std::uint32_t>(requests_, 1));
  return std::clamp(next_leaves, kRetryAfterMin, kRetryAfterMax);
}

}  // namespace baleen::router
