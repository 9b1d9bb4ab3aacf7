// Metrics of a rank of a group: what its peers cost it, and on rank 0 how the group is.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "observability/metrics/metrics.h"

namespace baleen::metrics {

class GroupMetrics {
 public:
  // `phases` and `peers` (this rank among them) are values of labels. The gauges by layer are only
  // there with `moe_layers` above 0: on rank 0, which hears of all ranks.
  GroupMetrics(Registry& registry, std::span<const std::string> phases,
               std::span<const std::string> peers, std::int32_t moe_layers);

  // By numbers of phase and peer.
  Counter& wait_seconds(std::int32_t phase, std::int32_t peer) {
    return wait_seconds_[phase * peers_ + peer];
  }
  Counter& bytes(std::int32_t phase, std::int32_t peer) { return bytes_[phase * peers_ + peer]; }
  Counter& steps_waited_longest(std::int32_t peer) { return steps_waited_longest_[peer]; }
  // By MoE layer.
  std::span<Gauge> expert_imbalance() { return expert_imbalance_; }

  Gauge epoch;
  Counter epochs_total;
  Gauge ranks;
  Gauge placement_version;
  std::vector<Gauge> ranks_present;  // one on rank 0, else none

 private:
  const std::int32_t peers_;
  std::vector<Counter> wait_seconds_;  // [phases][peers]
  std::vector<Counter> bytes_;         // [phases][peers]
  std::vector<Counter> steps_waited_longest_;
  std::vector<Gauge> expert_imbalance_;
};

}  // namespace baleen::metrics
