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
    : home_(std::exchange(other.home_, nullptr)), bytes_(other.bytes_), since_(other.since_) {}

Admission::Ticket& Admission::Ticket::operator=(Ticket&& other) noexcept {
  std::swap(home_, other.home_);
  std::swap(bytes_, other.bytes_);
  std::swap(since_, other.since_);
  return *this;
}

Admission::Ticket::~Ticket() {
  if (home_ != nullptr) home_->Leave(bytes_, since_);
}

Admission::Admission(const AdmissionOptions& options, const Clock& clock)
    : options_(options), clock_(clock) {}

absl::StatusOr<Admission::Ticket> Admission::Admit(std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (!admitting_) return MakeStatus(Reason::kDraining, "this router is shutting down");
  const auto refuse = [this](std::string_view what) {
    return MakeStatus(
        Reason::kQueueFull,
        fmt::format("{}; retry after {} ms", what, absl::ToInt64Milliseconds(RetryAfterLocked())));
  };
  if (requests_ >= options_.requests_max) {
    return refuse(
        fmt::format("{} requests are inside, limit {}", requests_, options_.requests_max));
  }
  if (bytes > options_.bytes_max - std::min(bytes_, options_.bytes_max)) {
    return refuse(fmt::format("{} bytes of requests are inside, {} more exceed the limit of {}",
                              bytes_, bytes, options_.bytes_max));
  }
  ++requests_;
  bytes_ += bytes;
  return Ticket(this, bytes, clock_.Monotonic());
}

void Admission::Leave(std::uint64_t bytes, absl::Duration since) {
  const double stay_s = absl::ToDoubleSeconds(clock_.Monotonic() - since);
  const std::lock_guard lock(mutex_);
  --requests_;
  bytes_ -= bytes;
  mean_stay_s_ += kNewestWeight * (stay_s - mean_stay_s_);
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
