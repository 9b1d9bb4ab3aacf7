// What a rank's metrics say of its group.
#pragma once

#include <cstdint>
#include <vector>

#include "observability/metrics/group_metrics.h"
#include "worker/expert_parallel/exchange_meter.h"
#include "worker/group/messages.h"

namespace baleen::worker {

class GroupReports {
 public:
  // Of rank `rank` of group `group` ("decode-0"), which is borrowed together with the rest.
  GroupReports(const GroupTerms& terms, std::uint32_t rank, std::size_t moe_layers,
               const ExchangeMeter& meter, metrics::Registry& registry);

  // The engine's thread, after each step: what it has cost, and who was waited for longest.
  void OnStep();
  // Any one thread at a time.
  void OnFormed(std::uint64_t epoch, std::uint64_t placement_version);
  void OnLost();
  void OnPlacement(std::uint64_t version);
  // On rank 0: as the leader sees it.
  void Show(const GroupView& view);

 private:
  const ExchangeMeter& meter_;
  const std::int32_t rank_;
  metrics::GroupMetrics metrics_;
  std::vector<ExchangeMeter::Reading> seen_;  // [phases][ranks]
};

}  // namespace baleen::worker
