// Which rank of a group holds which experts. Placement is data: it decides where an expert is
// computed, never what comes out.
//
// Every rank has the same number of expert slots, each with the weights of one expert of one layer;
// an expert is in at least one slot. With redundant experts the busiest ones are in several.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baleen::worker {

inline constexpr std::int32_t kGroupRanksMax = 1024;
inline constexpr std::int32_t kExpertsMax = 4096;

// What all layers of a model have in common.
struct PlacementShape {
  std::int32_t experts = 0;            // routed experts of a layer, 1 to kExpertsMax
  std::int32_t ranks = 1;              // of the group, 1 to kGroupRanksMax
  std::int32_t redundant_experts = 0;  // slots beyond one for each expert
  std::int32_t expert_groups = 1;      // n_group of the gate; divides experts
  std::int32_t nodes = 1;              // machines that the ranks are on, evenly, in order

  std::int32_t slots() const { return experts + redundant_experts; }
  std::int32_t slots_per_rank() const { return slots() / ranks; }
};

// INVALID_ARGUMENT names the number: out of range, slots that do not divide over the ranks, ranks
// that do not divide over the nodes.
absl::Status CheckPlacementShape(const PlacementShape& shape);

// One layer. Slot s is on rank s / slots_per_rank.
class LayerPlacement {
 public:
  // `expert_of_slot`: [shape.slots()]. INVALID_ARGUMENT names a slot with an expert out of range,
  // or an expert without a slot. Precondition: CheckPlacementShape.
  static absl::StatusOr<LayerPlacement> Make(const PlacementShape& shape,
                                             std::vector<std::int32_t> expert_of_slot);

  const std::vector<std::int32_t>& expert_of_slot() const { return expert_of_slot_; }
  // The slots of `expert`, ascending; at least one.
  std::span<const std::int32_t> SlotsOf(std::int32_t expert) const {
    return std::span(slots_).subspan(begin_[expert], begin_[expert + 1] - begin_[expert]);
  }

  friend bool operator==(const LayerPlacement& a, const LayerPlacement& b) {
    return a.expert_of_slot_ == b.expert_of_slot_;
  }

 private:
  std::vector<std::int32_t> expert_of_slot_;
  std::vector<std::size_t> begin_;   // [experts + 1]: into slots_
  std::vector<std::int32_t> slots_;  // by expert
};

// All MoE layers of a model, in their order.
struct ModelPlacement {
  PlacementShape shape;
  std::vector<LayerPlacement> layers;
};

// Expert e in slot e. With redundant experts: as if all were equally busy.
// Precondition: CheckPlacementShape.
LayerPlacement ContiguousPlacement(const PlacementShape& shape);

// The placement for experts as busy as `load` [shape.experts], any unit, 0 or more: the busiest per
// replica gets the next replica, then replicas are packed on ranks so that the busiest rank has
// little to do. With several nodes whose number divides expert_groups, the experts of a group stay
// on one node, so that the gate's group limit bounds the nodes that a token goes to. This is EPLB
// (DeepSeek-AI, "Expert Parallelism Load Balancer", 2025); ties go to the lower number, so the
// result is a function of the arguments. Precondition: CheckPlacementShape.
LayerPlacement BalancedPlacement(const PlacementShape& shape, std::span<const double> load);

// The busiest rank's load by the mean of all, 1 or more; an expert's load is shared evenly by its
// replicas. 1 without any load.
double Imbalance(const PlacementShape& shape, const LayerPlacement& placement,
                 std::span<const double> load);

// Which of `replicas` replicas computes `expert` for the token at `position` of `request`: a
// function of its arguments, so that a token takes the same way whoever its neighbours are, and
// even over requests and positions.
std::uint32_t ReplicaFor(std::uint64_t request, std::uint32_t position, std::int32_t expert,
                         std::uint32_t replicas);

}  // namespace baleen::worker
