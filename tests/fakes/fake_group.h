// A Group that a test forms and breaks, and that records what its engine says.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "worker/engine/inbox.h"
#include "worker/engine/lockstep/group.h"

namespace baleen::worker {

// Thread-safe.
class FakeGroup final : public Group {
 public:
  // `inbox` is that of the engine; woken when there is something new.
  explicit FakeGroup(Inbox& inbox) : inbox_(inbox) {}

  // The test's side.
  void Form(std::uint64_t epoch, std::shared_ptr<GroupEndpoint> endpoint) {
    {
      const std::lock_guard lock(mutex_);
      formed_ = FormedGroup{.epoch = epoch, .endpoint = std::move(endpoint)};
      prepared_ = 0;
    }
    inbox_.Wake();
  }
  void Prepare(std::uint32_t changes) {
    {
      const std::lock_guard lock(mutex_);
      prepared_ = changes;
    }
    inbox_.Wake();
  }
  std::uint32_t adopted() const {
    const std::lock_guard lock(mutex_);
    return adopted_;
  }
  std::vector<absl::Status> broken() const {
    const std::lock_guard lock(mutex_);
    return broken_;
  }

  // The engine's side.
  std::optional<FormedGroup> TakeFormed() override {
    const std::lock_guard lock(mutex_);
    return std::exchange(formed_, std::nullopt);
  }
  void OnBroken(std::uint64_t /*epoch*/, const absl::Status& why) override {
    const std::lock_guard lock(mutex_);
    broken_.push_back(why);
  }
  std::uint32_t Prepared() const override {
    const std::lock_guard lock(mutex_);
    return prepared_;
  }
  void OnStep() override {}
  void Adopt() override {
    const std::lock_guard lock(mutex_);
    ++adopted_;
  }

 private:
  Inbox& inbox_;
  mutable std::mutex mutex_;
  std::optional<FormedGroup> formed_;
  std::uint32_t prepared_ = 0;
  std::uint32_t adopted_ = 0;
  std::vector<absl::Status> broken_;
};

}  // namespace baleen::worker
