// The routed experts of this rank: the weights in its slots, layer by layer. A placement that
// changes is read beside the one that is used, and takes its place between two steps.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/experts/expert_shard.h"
#include "worker/model/tensor_binder.h"
#include "worker/model/weights.h"

namespace baleen::worker {

// Prepare may run on any thread, one call at a time; everything else is the stepping thread's.
class ExpertBank {
 public:
  // `config` and `source` outlive the bank. Precondition: CheckExpertShard, CheckWeights.
  static absl::StatusOr<std::unique_ptr<ExpertBank>> Load(const ModelConfig& config,
                                                          const TensorSource& source,
                                                          ExpertShard shard);

  // What Load reads.
  static absl::StatusOr<std::uint64_t> LoadedBytes(const ModelConfig& config,
                                                   const TensorSource& source,
                                                   const ExpertShard& shard);

  const PlacementShape& shape() const { return shape_; }
  const LayerPlacement& placement(std::int32_t layer) const { return layers_[layer].placement; }
  // The expert in slot `slot` of this rank, 0 to slots_per_rank - 1.
  const MlpWeights& At(std::int32_t layer, std::int32_t slot) const {
    return layers_[layer].slots[slot]->weights;
  }

  // As of ExpertHost.
  absl::Status Prepare(std::int32_t layer, LayerPlacement placement);
  void Adopt();

 private:
  struct Expert {
    std::int32_t id = 0;
    MlpWeights weights;
    std::vector<Buffer> storage;  // weights point into it
  };
  // Replicas on one rank are one expert.
  using Slots = std::vector<std::shared_ptr<const Expert>>;
  struct Layer {
    LayerPlacement placement;
    Slots slots;
  };
  struct Prepared {
    std::int32_t layer = 0;
    Layer content;
  };

  ExpertBank(const ModelConfig& config, const TensorSource& source, std::int32_t rank,
             const PlacementShape& shape)
      : config_(config), source_(source), rank_(rank), shape_(shape) {}

  // The slots of this rank under `placement`; experts of `held` are not read again.
  absl::StatusOr<Slots> Fill(std::int32_t layer, const LayerPlacement& placement,
                             const Slots& held) const;
  absl::StatusOr<std::shared_ptr<const Expert>> Read(std::int32_t layer, std::int32_t expert) const;

  const ModelConfig& config_;
  const TensorSource& source_;
  const std::int32_t rank_;
  const PlacementShape shape_;
  std::vector<Layer> layers_;  // written by Adopt only, under the mutex

  std::mutex mutex_;
  std::optional<Prepared> prepared_;
};

}  // namespace baleen::worker
