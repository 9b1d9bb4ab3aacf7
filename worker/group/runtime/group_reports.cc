#include "worker/group/runtime/group_reports.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace baleen::worker {
namespace {

std::vector<std::string> PhaseNames() {
  std::vector<std::string> names;
  for (int phase = 0; phase < kExchangePhases; ++phase) {
    names.emplace_back(NameOf(static_cast<ExchangePhase>(phase)));
    std::ranges::replace(names.back(), ' ', '_');
  }
  return names;
}

std::vector<std::string> PeerNames(const GroupTerms& terms) {
  std::vector<std::string> names;
  for (std::uint32_t rank = 0; rank < terms.ranks; ++rank) {
    names.push_back(fmt::format("{}.{}", terms.group, rank));
  }
  return names;
}

}  // namespace

GroupReports::GroupReports(const GroupTerms& terms, std::uint32_t rank, std::size_t moe_layers,
                           const ExchangeMeter& meter, metrics::Registry& registry)
    : meter_(meter),
      rank_(static_cast<std::int32_t>(rank)),
      metrics_(registry, PhaseNames(), PeerNames(terms),
               rank == 0 ? static_cast<std::int32_t>(moe_layers) : 0),
      seen_(std::size_t{kExchangePhases} * terms.ranks) {}

void GroupReports::OnStep() {
  std::int32_t longest = -1;
  double longest_seconds = 0;
  for (std::int32_t peer = 0; peer < meter_.ranks(); ++peer) {
    double seconds = 0;
    for (int phase = 0; phase < kExchangePhases; ++phase) {
      ExchangeMeter::Reading& seen = seen_[phase * meter_.ranks() + peer];
      const ExchangeMeter::Reading now = meter_.Read(static_cast<ExchangePhase>(phase), peer);
      seconds += now.wait_seconds - seen.wait_seconds;
      metrics_.wait_seconds(phase, peer).Add(now.wait_seconds - seen.wait_seconds);
      metrics_.bytes(phase, peer).Add(now.bytes - seen.bytes);
      seen = now;
    }
    if (peer == rank_ || seconds <= longest_seconds) continue;
    longest = peer;
    longest_seconds = seconds;
  }
  if (longest >= 0) metrics_.steps_waited_longest(longest).Add();
}

void GroupReports::OnFormed(std::uint64_t epoch, std::uint64_t placement_version) {
  metrics_.epoch.Set(static_cast<double>(epoch));
  metrics_.epochs_total.Add();
  OnPlacement(placement_version);
}

void GroupReports::OnLost() { metrics_.epoch.Set(0); }

void GroupReports::OnPlacement(std::uint64_t version) {
  metrics_.placement_version.Set(static_cast<double>(version));
}

void GroupReports::Show(const GroupView& view) {
  const auto present = std::ranges::count_if(view.members, &GroupView::Member::present);
  for (metrics::Gauge& gauge : metrics_.ranks_present) gauge.Set(static_cast<double>(present));
  const std::span<metrics::Gauge> gauges = metrics_.expert_imbalance();
  for (std::size_t layer = 0; layer < std::min(gauges.size(), view.imbalance.size()); ++layer) {
    gauges[layer].Set(view.imbalance[layer]);
  }
}

}  // namespace baleen::worker
