// The experts of a rank as the group sees them: a seam. The placement moves them while the group
// serves; their load says where to.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "worker/expert_parallel/placement.h"

namespace baleen::worker {

// How many tokens of this rank went to each expert since the start. One thread adds, any may read.
class ExpertLoad {
 public:
  ExpertLoad(std::int32_t layers, std::int32_t experts)
      : layers_(layers),
        experts_(experts),
        counts_(std::make_unique<std::atomic<std::uint64_t>[]>(std::size_t(layers) * experts)) {}

  void Add(std::int32_t layer, std::int32_t expert, std::uint64_t tokens = 1) {
    counts_[std::size_t(layer) * experts_ + expert].fetch_add(tokens, std::memory_order_relaxed);
  }
  std::uint64_t At(std::int32_t layer, std::int32_t expert) const {
    return counts_[std::size_t(layer) * experts_ + expert].load(std::memory_order_relaxed);
  }

  std::int32_t layers() const { return layers_; }    // MoE layers
  std::int32_t experts() const { return experts_; }  // routed experts of a layer

 private:
  const std::int32_t layers_;
  const std::int32_t experts_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;  // [layers][experts]
};

// Real: DeepSeekModel. Twin: FakeExpertHost (tests/fakes).
class ExpertHost {
 public:
  virtual ~ExpertHost() = default;

  // Any thread, one call at a time: reads the weights of those slots of this rank that `placement`
  // changes in MoE layer `layer` (counted from 0). They take effect with Adopt; until then steps
  // run on the old ones. INVALID_ARGUMENT: another shape than the model was loaded with.
  // FAILED_PRECONDITION: the last Prepare was not adopted yet.
  virtual absl::Status Prepare(std::int32_t layer, LayerPlacement placement) = 0;

  // The thread of Model::Step, between steps: what was prepared takes effect, and the slots that it
  // replaces give their memory back. Precondition: a Prepare has succeeded since the last Adopt.
  virtual void Adopt() = 0;

  virtual const ExpertLoad& expert_load() const = 0;
};

}  // namespace baleen::worker
