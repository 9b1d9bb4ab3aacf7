#include "worker/model/experts/expert_shard.h"

#include <algorithm>
#include <vector>

#include "fmt/format.h"
#include "kernels/include/ops.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

constexpr std::int32_t RoundUp(std::int32_t value, std::int32_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

}  // namespace

std::string_view NameOf(DispatchFormat format) {
  return format == DispatchFormat::kFp8 ? "fp8" : "bf16";
}

std::string ArithmeticOf(DispatchFormat format) {
  std::string arithmetic = kernels::kArithmeticVersion;
  if (format == DispatchFormat::kFp8) arithmetic += "+fp8-dispatch";
  return arithmetic;
}

std::int32_t MoeLayersOf(const ModelConfig& config) {
  return static_cast<std::int32_t>(config.num_hidden_layers - config.first_k_dense_replace);
}

PlacementShape PlacementShapeOf(const ModelConfig& config, std::int32_t ranks,
                                std::int32_t redundant_experts, std::int32_t nodes) {
  return {.experts = static_cast<std::int32_t>(config.n_routed_experts),
          .ranks = ranks,
          .redundant_experts = redundant_experts,
          .expert_groups = static_cast<std::int32_t>(config.n_group),
          .nodes = nodes};
}

ModelPlacement ContiguousModelPlacement(const ModelConfig& config, const PlacementShape& shape) {
  ModelPlacement placement{.shape = shape};
  for (std::int32_t layer = 0; layer < MoeLayersOf(config); ++layer) {
    placement.layers.push_back(ContiguousPlacement(shape));
  }
  return placement;
}

absl::Status CheckLayerPlacement(const PlacementShape& shape, std::int32_t layer,
                                 const LayerPlacement& placement) {
  const std::vector<std::int32_t>& slots = placement.expert_of_slot();
  // Every expert has a slot, so the highest one tells their number.
  const std::int32_t experts = slots.empty() ? 0 : std::ranges::max(slots) + 1;
  if (slots.size() != static_cast<std::size_t>(shape.slots()) || experts != shape.experts) {
    return absl::InvalidArgumentError(
        fmt::format("placement of MoE layer {}: {} slots for {} experts; the model has {} for {}",
                    layer, slots.size(), experts, shape.slots(), shape.experts));
  }
  return absl::OkStatus();
}

absl::Status CheckExpertShard(const ModelConfig& config, const ExpertShard& shard) {
  const PlacementShape& shape = shard.placement.shape;
  BALEEN_RETURN_IF_ERROR(CheckPlacementShape(shape));
  const struct {
    const char* what;
    std::int64_t placement;
    std::int64_t model;
  } numbers[] = {
      {"experts", shape.experts, config.n_routed_experts},
      {"expert groups", shape.expert_groups, config.n_group},
      {"layers", static_cast<std::int64_t>(shard.placement.layers.size()), MoeLayersOf(config)}};
  for (const auto& number : numbers) {
    if (number.placement != number.model) {
      return absl::InvalidArgumentError(fmt::format("placement of {} {}, the model has {}",
                                                    number.placement, number.what, number.model));
    }
  }
  if (shard.rank < 0 || shard.rank >= shape.ranks) {
    return absl::InvalidArgumentError(
        fmt::format("rank {} of a group of {} ranks", shard.rank, shape.ranks));
  }
  for (std::size_t layer = 0; layer < shard.placement.layers.size(); ++layer) {
    BALEEN_RETURN_IF_ERROR(CheckLayerPlacement(shape, static_cast<std::int32_t>(layer),
                                               shard.placement.layers[layer]));
  }
  return absl::OkStatus();
}

DispatchRowLayout DispatchRowLayoutOf(const ModelConfig& config, DispatchFormat format) {
  const auto hidden = static_cast<std::int32_t>(config.hidden_size);
  if (format == DispatchFormat::kBf16) return {.row_bytes = hidden * 2};
  const std::int32_t scales_begin = RoundUp(hidden, 4);
  const std::int32_t scales = (hidden + kernels::kScaleBlock - 1) / kernels::kScaleBlock;
  return {.row_bytes = RoundUp(scales_begin + scales * 4, 16), .scales_begin = scales_begin};
}

AllToAllShape ExchangeShapeOf(const ModelConfig& config, const StepLimits& limits,
                              const PlacementShape& placement, DispatchFormat format) {
  return {.ranks = placement.ranks,
          .slots_per_rank = placement.slots_per_rank(),
          .slots_per_row = static_cast<std::int32_t>(config.num_experts_per_tok),
          .row_bytes = DispatchRowLayoutOf(config, format).row_bytes,
          .output_bytes = static_cast<std::int32_t>(config.hidden_size) * 2,
          .rows_max = static_cast<std::int32_t>(limits.tokens_max)};
}

}  // namespace baleen::worker
