// The group of all membership tests: two MoE layers of eight experts.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/group/messages.h"

namespace baleen::worker {

inline GroupTerms TermsOf(std::uint32_t ranks) {
  return {.group = "prefill-0",
          .ranks = ranks,
          .model_digest = "d1",
          .build = "0.1",
          .facts = {{"arithmetic", "baleen-1"}, {"rows_max", "512"}}};
}

inline PlacementShape ShapeOf(std::uint32_t ranks) {
  return {.experts = 8, .ranks = static_cast<std::int32_t>(ranks)};
}

inline std::vector<LayerPlacement> LayersOf(std::uint32_t ranks) {
  return std::vector<LayerPlacement>(2, ContiguousPlacement(ShapeOf(ranks)));
}

}  // namespace baleen::worker
