#include "worker/model/experts/expert_bank.h"

#include <algorithm>
#include <set>
#include <span>
#include <utility>

#include "fmt/format.h"
#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

// The experts in the slots of `rank`.
std::span<const std::int32_t> ExpertsOf(const PlacementShape& shape, std::int32_t rank,
                                        const LayerPlacement& placement) {
  const auto slots = static_cast<std::size_t>(shape.slots_per_rank());
  return std::span(placement.expert_of_slot()).subspan(rank * slots, slots);
}

// Of a MoE layer's number.
std::uint32_t DecoderLayer(const ModelConfig& config, std::int32_t layer) {
  return config.first_k_dense_replace + static_cast<std::uint32_t>(layer);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertBank>> ExpertBank::Load(const ModelConfig& config,
                                                             const TensorSource& source,
                                                             ExpertShard shard) {
  std::unique_ptr<ExpertBank> bank(
      new ExpertBank(config, source, shard.rank, shard.placement.shape));
  for (LayerPlacement& placement : shard.placement.layers) {
    const auto layer = static_cast<std::int32_t>(bank->layers_.size());
    BALEEN_ASSIGN_OR_RETURN(Slots slots, bank->Fill(layer, placement, {}));
    bank->layers_.push_back({std::move(placement), std::move(slots)});
  }
  return bank;
}

absl::StatusOr<std::uint64_t> ExpertBank::LoadedBytes(const ModelConfig& config,
                                                      const TensorSource& source,
                                                      const ExpertShard& shard) {
  std::vector<Buffer> unused;
  TensorBinder binder(source, unused, TensorBinder::Mode::kCheck);
  for (std::size_t layer = 0; layer < shard.placement.layers.size(); ++layer) {
    const auto experts =
        ExpertsOf(shard.placement.shape, shard.rank, shard.placement.layers[layer]);
    for (const std::int32_t expert : std::set(experts.begin(), experts.end())) {
      BALEEN_RETURN_IF_ERROR(BindExpert(config, binder,
                                        DecoderLayer(config, static_cast<std::int32_t>(layer)),
                                        static_cast<std::uint32_t>(expert))
                                 .status());
    }
  }
  return binder.bytes();
}

absl::Status ExpertBank::Prepare(std::int32_t layer, LayerPlacement placement) {
  if (layer < 0 || static_cast<std::size_t>(layer) >= layers_.size()) {
    return absl::InvalidArgumentError(
        fmt::format("placement of MoE layer {}; the model has {}", layer, layers_.size()));
  }
  BALEEN_RETURN_IF_ERROR(CheckLayerPlacement(shape_, layer, placement));
  Slots held;
  {
    const std::lock_guard lock(mutex_);
    if (prepared_.has_value()) {
      return absl::FailedPreconditionError(
          fmt::format("placement of MoE layer {}: the one of MoE layer {} was not adopted yet",
                      layer, prepared_->layer));
    }
    held = layers_[layer].slots;
  }
  BALEEN_ASSIGN_OR_RETURN(Slots slots, Fill(layer, placement, held));
  const std::lock_guard lock(mutex_);
  prepared_ = {layer, {std::move(placement), std::move(slots)}};
  return absl::OkStatus();
}

void ExpertBank::Adopt() {
  std::optional<Prepared> old;  // gives its memory back outside of the mutex
  const std::lock_guard lock(mutex_);
  BALEEN_CHECK(prepared_.has_value(), "what is adopted was prepared");
  std::swap(layers_[prepared_->layer], prepared_->content);
  old = std::exchange(prepared_, std::nullopt);
}

absl::StatusOr<ExpertBank::Slots> ExpertBank::Fill(std::int32_t layer,
                                                   const LayerPlacement& placement,
                                                   const Slots& held) const {
  Slots slots;
  for (const std::int32_t expert : ExpertsOf(shape_, rank_, placement)) {
    const auto is_it = [expert](const auto& other) { return other->id == expert; };
    if (const auto own = std::ranges::find_if(slots, is_it); own != slots.end()) {
      slots.push_back(*own);
    } else if (const auto old = std::ranges::find_if(held, is_it); old != held.end()) {
      slots.push_back(*old);
    } else {
      BALEEN_ASSIGN_OR_RETURN(std::shared_ptr<const Expert> read, Read(layer, expert));
      slots.push_back(std::move(read));
    }
  }
  return slots;
}

absl::StatusOr<std::shared_ptr<const ExpertBank::Expert>> ExpertBank::Read(
    std::int32_t layer, std::int32_t expert) const {
  auto read = std::make_shared<Expert>();
  read->id = expert;
  TensorBinder binder(source_, read->storage, TensorBinder::Mode::kLoad);
  BALEEN_ASSIGN_OR_RETURN(read->weights, BindExpert(config_, binder, DecoderLayer(config_, layer),
                                                    static_cast<std::uint32_t>(expert)));
  return read;
}

}  // namespace baleen::worker
