// What a placement does for the balance of a group: figures, a table for people, a line for
// scripts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tools/cli/terminal/style.h"
#include "worker/group/messages.h"

namespace baleen::cli {

// Every layer laid out for its own counts. INVALID_ARGUMENT names the number that does not fit.
// Precondition: `counts` is not empty, and each layer has the same number of experts, that of
// `shape`.
absl::StatusOr<worker::GroupPlacement> BalancedFor(const worker::PlacementShape& shape,
                                                   const worker::ExpertCounts& counts);
// The same without looking at the counts, as a group starts without a placement.
absl::StatusOr<worker::GroupPlacement> ContiguousFor(const worker::PlacementShape& shape,
                                                     std::size_t layers);

// Imbalances: the busiest rank's tokens by the mean of all ranks, 1 or more.
struct BalanceReport {
  struct Layer {
    std::uint64_t tokens = 0;
    double before = 1;
    double after = 1;
  };
  worker::PlacementShape shape;  // of the placement after
  std::vector<Layer> layers;     // MoE layers
  std::uint64_t tokens = 0;
  // Over all layers: each waits for its busiest rank, so they count by their tokens.
  double before = 1;
  double after = 1;
};

// Precondition: counts, before and after are of the same layers and experts.
BalanceReport CompareBalance(const worker::ExpertCounts& counts,
                             const worker::GroupPlacement& before,
                             const worker::GroupPlacement& after);

std::string ToText(const BalanceReport& report, const Style& style);
// {"experts": .., "ranks": .., "redundant_experts": .., "tokens": .., "before": .., "after": ..,
// "layers": [{"tokens": .., "before": .., "after": ..}, ..]}
std::string ToJson(const BalanceReport& report);

}  // namespace baleen::cli
