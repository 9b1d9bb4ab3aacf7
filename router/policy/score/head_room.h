// How much KV memory a rank would have left. Reads: blocks used and reserved, those of the request.
#pragma once

#include <algorithm>

#include "router/policy/cluster_view.h"

namespace baleen::router {

// In [0, 1]: the share of the rank's blocks that are free once it has `work`.
inline double HeadRoomScore(const WorkerView& worker, const Work& work) {
  const double taken = static_cast<double>(worker.KvBlocks() + work.kv_blocks);
  return std::max(0.0, 1.0 - taken / static_cast<double>(worker.facts.kv_blocks_total));
}

}  // namespace baleen::router
