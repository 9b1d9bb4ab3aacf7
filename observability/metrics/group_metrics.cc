#include "observability/metrics/group_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

namespace baleen::metrics {
namespace {

Gauge MakeGauge(Registry& registry, const char* name, const char* help,
                const prometheus::Labels& labels = {}) {
  return Gauge(
      prometheus::BuildGauge().Name(name).Help(help).Register(*registry.shared()).Add(labels));
}

Counter MakeCounter(Registry& registry, const char* name, const char* help,
                    const prometheus::Labels& labels = {}) {
  return Counter(
      prometheus::BuildCounter().Name(name).Help(help).Register(*registry.shared()).Add(labels));
}

}  // namespace

GroupMetrics::GroupMetrics(Registry& registry, std::span<const std::string> phases,
                           std::span<const std::string> peers, std::int32_t moe_layers)
    : epoch(MakeGauge(registry, "baleen_worker_group_epoch",
                      "Epoch of the group's membership; 0 while it is not complete.")),
      epochs_total(MakeCounter(registry, "baleen_worker_group_epochs_total",
                               "Epochs that this rank has been part of.")),
      ranks(MakeGauge(registry, "baleen_worker_group_ranks",
                      "Ranks that the group has when it is "
                      "complete.")),
      placement_version(MakeGauge(registry, "baleen_worker_group_placement_version",
                                  "Version of the placement of experts that is in use.")),
      peers_(static_cast<std::int32_t>(peers.size())) {
  ranks.Set(peers_);
  for (const std::string& phase : phases) {
    for (const std::string& peer : peers) {
      const prometheus::Labels labels = {{"phase", phase}, {"peer", peer}};
      wait_seconds_.push_back(MakeCounter(
          registry, "baleen_worker_exchange_wait_seconds_total",
          "From the begin of a wait for all ranks until this peer had come, in seconds.", labels));
      bytes_.push_back(MakeCounter(registry, "baleen_worker_exchange_bytes_total",
                                   "Bytes sent to this peer.", labels));
    }
  }
  for (const std::string& peer : peers) {
    steps_waited_longest_.push_back(
        MakeCounter(registry, "baleen_worker_steps_waited_longest_total",
                    "Steps in which this rank waited longest for this peer.", {{"peer", peer}}));
  }
  if (moe_layers == 0) return;
  ranks_present.push_back(MakeGauge(registry, "baleen_worker_group_ranks_present",
                                    "Ranks that have joined and are heard of."));
  for (std::int32_t layer = 0; layer < moe_layers; ++layer) {
    expert_imbalance_.push_back(
        MakeGauge(registry, "baleen_worker_expert_imbalance",
                  "Tokens for the experts of the busiest rank by the mean of all ranks, in this "
                  "MoE layer; 1 is even.",
                  {{"layer", std::to_string(layer)}}));
  }
}

}  // namespace baleen::metrics
