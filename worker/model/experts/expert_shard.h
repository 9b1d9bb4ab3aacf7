// What a rank of a group holds of a model, and what crosses between ranks: known from the config
// alone, so that a group can form before weights are read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/placement.h"
#include "worker/model/config.h"
#include "worker/model/model.h"

namespace baleen::worker {

// How the inputs of routed experts are carried. kFp8: quantised to e4m3 with a scale for every 128
// values (docs/arithmetic.md, "Dispatch in FP8"). It is done to every row, whether or not it
// leaves its rank, and is part of ModelInfo::arithmetic: ranks that differ in it do not mix.
enum class DispatchFormat : std::uint8_t { kBf16, kFp8 };

// "bf16", "fp8".
std::string_view NameOf(DispatchFormat format);

// ModelInfo::arithmetic of a model with this format.
std::string ArithmeticOf(DispatchFormat format);

// The share of one rank: the slots [rank * slots_per_rank, (rank + 1) * slots_per_rank) of every
// MoE layer. Everything but the routed experts is on every rank.
struct ExpertShard {
  std::int32_t rank = 0;
  ModelPlacement placement;
};

// Layers with routed experts.
std::int32_t MoeLayersOf(const ModelConfig& config);

// How the experts of a model may be placed on a group; see PlacementShape.
PlacementShape PlacementShapeOf(const ModelConfig& config, std::int32_t ranks,
                                std::int32_t redundant_experts = 0, std::int32_t nodes = 1);

// ContiguousPlacement of every MoE layer. Precondition: CheckPlacementShape.
ModelPlacement ContiguousModelPlacement(const ModelConfig& config, const PlacementShape& shape);

// INVALID_ARGUMENT: the placement of MoE layer `layer` was made for another shape.
absl::Status CheckLayerPlacement(const PlacementShape& shape, std::int32_t layer,
                                 const LayerPlacement& placement);

// INVALID_ARGUMENT names what does not fit the config: experts, groups, layers, rank.
absl::Status CheckExpertShard(const ModelConfig& config, const ExpertShard& shard);

// How a row lies in a dispatch buffer. kBf16: the values. kFp8: the codes, padded to 4 bytes, then
// the scales in fp32, padded to 16 bytes.
struct DispatchRowLayout {
  std::int32_t row_bytes = 0;
  std::int32_t scales_begin = 0;  // kFp8 only
};
DispatchRowLayout DispatchRowLayoutOf(const ModelConfig& config, DispatchFormat format);

// The exchange that a model with these limits takes part in. wait_max is left at its default.
AllToAllShape ExchangeShapeOf(const ModelConfig& config, const StepLimits& limits,
                              const PlacementShape& placement, DispatchFormat format);

}  // namespace baleen::worker
