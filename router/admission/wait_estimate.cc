#include "router/admission/wait_estimate.h"

#include <algorithm>
#include <cmath>

namespace baleen::router {
namespace {

// The past counts as e^(-age/memory): room comes in bursts, so it must span several replies.
constexpr double kMemoryS = 10.0;
// Fewer starts, or less time, say nothing about a rate.
constexpr double kStartsLeast = 4.0;
constexpr double kBackloggedLeastS = 0.5;
constexpr double kBackloggedEnoughS = 5.0;  // however long the runs are
// Of the newest reply in the averages: the last twenty or so decide.
constexpr double kNewestWeight = 0.1;

}  // namespace

WaitEstimate::Sums WaitEstimate::At(absl::Duration now) const {
  const double passed_s = absl::ToDoubleSeconds(now - updated_);
  const double kept = std::exp(-passed_s / kMemoryS);
  return {
      .work = sums_.work * kept,
      .starts = sums_.starts * kept,
      .backlogged_s = sums_.backlogged_s * kept + (backlogged_ ? kMemoryS * (1.0 - kept) : 0.0)};
}

void WaitEstimate::Started(absl::Duration now, std::uint64_t work) {
  sums_ = At(now);
  updated_ = now;
  sums_.work += static_cast<double>(work);
  sums_.starts += 1.0;
}

void WaitEstimate::SetBacklogged(absl::Duration now, bool backlogged) {
  if (backlogged == backlogged_) return;
  sums_ = At(now);
  updated_ = now;
  backlogged_ = backlogged;
  backlogged_since_ = now;
}

void WaitEstimate::Finished(absl::Duration to_first_token, absl::Duration total,
                            std::uint32_t tokens) {
  const double first_s = absl::ToDoubleSeconds(to_first_token);
  const double later_s =
      tokens > 1 ? absl::ToDoubleSeconds(total - to_first_token) / (tokens - 1) : later_token_s_;
  const double weight = has_finished_ ? kNewestWeight : 1.0;
  first_token_s_ += weight * (first_s - first_token_s_);
  later_token_s_ += weight * (later_s - later_token_s_);
  tokens_ += weight * (tokens - tokens_);
  has_finished_ = true;
}

std::optional<absl::Duration> WaitEstimate::Wait(absl::Duration now,
                                                 std::uint64_t work_before) const {
  const Sums sums = At(now);
  const double two_runs_s = 2.0 * (first_token_s_ + later_token_s_ * tokens_);
  const double least_s = std::clamp(two_runs_s, kBackloggedLeastS, kBackloggedEnoughS);
  if (sums.starts < kStartsLeast || sums.backlogged_s < least_s) return std::nullopt;
  return absl::Seconds(static_cast<double>(work_before) * sums.backlogged_s / sums.work);
}

absl::Duration WaitEstimate::Run(std::uint32_t tokens_max) const {
  if (!has_finished_) return absl::ZeroDuration();
  const double tokens = std::min<double>(tokens_max, tokens_);
  return absl::Seconds(first_token_s_ + later_token_s_ * std::max(0.0, tokens - 1.0));
}

}  // namespace baleen::router
