// An ExpertHost without weights that records what it is told to hold.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "worker/model/expert_host.h"

namespace baleen::worker {

// Thread-safe.
class FakeExpertHost final : public ExpertHost {
 public:
  FakeExpertHost(std::int32_t layers, std::int32_t experts) : load(layers, experts) {}

  absl::Status Prepare(std::int32_t layer, LayerPlacement placement) override {
    const std::lock_guard lock(mutex_);
    if (prepared_.has_value()) return absl::FailedPreconditionError("not adopted yet");
    prepared_.emplace(layer, std::move(placement));
    return next_failure_;
  }
  void Adopt() override {
    const std::lock_guard lock(mutex_);
    BALEEN_CHECK(prepared_.has_value(), "something was prepared");
    adopted_.push_back(*std::exchange(prepared_, std::nullopt));
  }
  const ExpertLoad& expert_load() const override { return load; }

  using Change = std::pair<std::int32_t, LayerPlacement>;
  // In the order of Adopt.
  std::vector<Change> adopted() const {
    const std::lock_guard lock(mutex_);
    return adopted_;
  }
  void FailPrepares(absl::Status status) {
    const std::lock_guard lock(mutex_);
    next_failure_ = std::move(status);
  }

  ExpertLoad load;

 private:
  mutable std::mutex mutex_;
  std::optional<Change> prepared_;
  std::vector<Change> adopted_;
  absl::Status next_failure_;
};

}  // namespace baleen::worker
