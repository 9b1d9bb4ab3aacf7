// Whether another placement would serve the measured load better: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "worker/group/messages.h"

namespace baleen::worker {

struct RebalanceRules {
  // A layer is placed anew when its imbalance (busiest rank by mean) falls by this share of it at
  // least: experts cost time to move.
  double gain_min = 0.05;
  // A layer with fewer counts than so many for each expert on average is left as it is: chance
  // would look like load.
  std::uint64_t tokens_per_expert_min = 100;
};

struct RebalanceProposal {
  std::vector<LayerPlacement> layers;  // all, in order
  std::size_t layers_changed = 0;      // 1 or more
  // Means over the layers that change.
  double imbalance_before = 1;
  double imbalance_after = 1;
};

// Nothing if no layer would gain enough. `counts` are of the placement's shape.
std::optional<RebalanceProposal> ProposeRebalance(const GroupPlacement& placement,
                                                  const ExpertCounts& counts,
                                                  const RebalanceRules& rules = {});

// Of each layer: see Imbalance in placement.h.
std::vector<double> ImbalanceOfLayers(const GroupPlacement& placement, const ExpertCounts& counts);

}  // namespace baleen::worker
