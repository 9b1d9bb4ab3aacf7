#include "worker/group/rules/rebalance.h"

#include <numeric>
#include <utility>

#include "observability/base/check.h"

namespace baleen::worker {
namespace {

std::vector<double> LoadOf(const std::vector<std::uint64_t>& counts) {
  return std::vector<double>(counts.begin(), counts.end());
}

}  // namespace

std::optional<RebalanceProposal> ProposeRebalance(const GroupPlacement& placement,
                                                  const ExpertCounts& counts,
                                                  const RebalanceRules& rules) {
  BALEEN_CHECK(counts.size() == placement.layers.size(), "counts for each layer");
  const PlacementShape& shape = placement.shape;
  const auto tokens_min =
      static_cast<double>(rules.tokens_per_expert_min) * static_cast<double>(shape.experts);
  RebalanceProposal proposal{.imbalance_before = 0, .imbalance_after = 0};
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    const LayerPlacement& current = placement.layers[layer];
    const std::vector<double> load = LoadOf(counts[layer]);
    if (std::accumulate(load.begin(), load.end(), 0.0) >= tokens_min) {
      LayerPlacement balanced = BalancedPlacement(shape, load);
      const double before = Imbalance(shape, current, load);
      const double after = Imbalance(shape, balanced, load);
      if (after <= before * (1.0 - rules.gain_min)) {
        proposal.layers.push_back(std::move(balanced));
        proposal.imbalance_before += before;
        proposal.imbalance_after += after;
        ++proposal.layers_changed;
        continue;
      }
    }
    proposal.layers.push_back(current);
  }
  if (proposal.layers_changed == 0) return std::nullopt;
  proposal.imbalance_before /= static_cast<double>(proposal.layers_changed);
  proposal.imbalance_after /= static_cast<double>(proposal.layers_changed);
  return proposal;
}

std::vector<double> ImbalanceOfLayers(const GroupPlacement& placement, const ExpertCounts& counts) {
  BALEEN_CHECK(counts.size() == placement.layers.size(), "counts for each layer");
  std::vector<double> imbalance;
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    imbalance.push_back(Imbalance(placement.shape, placement.layers[layer], LoadOf(counts[layer])));
  }
  return imbalance;
}

}  // namespace baleen::worker
