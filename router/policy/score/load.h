// How much a rank's decode steps have to read. Reads: context tokens held and reserved.
#pragma once

#include <algorithm>

#include "proto/contract/limits.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

// In [0, 1]: 1 without contexts, 0 when they fill the rank's KV memory.
inline double LoadScore(const WorkerView& worker) {
  const double capacity =
      static_cast<double>(worker.facts.kv_blocks_total) * contract::kBlockTokens;
  return std::max(0.0, 1.0 - static_cast<double>(worker.ContextTokens()) / capacity);
}

}  // namespace baleen::router
