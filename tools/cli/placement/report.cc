#include "tools/cli/placement/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "tools/cli/terminal/table.h"
#include "worker/expert_parallel/placement.h"

namespace baleen::cli {
namespace {

std::vector<double> LoadOf(const std::vector<std::uint64_t>& tokens) {
  return {tokens.begin(), tokens.end()};
}

// Absurd counts stay absurd instead of beginning again at 0.
std::uint64_t SaturatingSum(std::uint64_t a, std::uint64_t b) {
  return a + std::min(b, std::numeric_limits<std::uint64_t>::max() - a);
}

// Four digits tell imbalances apart that matter; more would be noise of the counts.
std::string Figure(double imbalance) { return fmt::format("{:.3f}", imbalance); }

}  // namespace

absl::StatusOr<worker::GroupPlacement> BalancedFor(const worker::PlacementShape& shape,
                                                   const worker::ExpertCounts& counts) {
  BALEEN_RETURN_IF_ERROR(worker::CheckPlacementShape(shape));
  worker::GroupPlacement placement{.shape = shape};
  for (const std::vector<std::uint64_t>& tokens : counts) {
    BALEEN_CHECK(tokens.size() == static_cast<std::size_t>(shape.experts), "one count an expert");
    placement.layers.push_back(worker::BalancedPlacement(shape, LoadOf(tokens)));
  }
  BALEEN_RETURN_IF_ERROR(worker::CheckGroupPlacement(placement));
  return placement;
}

absl::StatusOr<worker::GroupPlacement> ContiguousFor(const worker::PlacementShape& shape,
                                                     std::size_t layers) {
  BALEEN_RETURN_IF_ERROR(worker::CheckPlacementShape(shape));
  worker::GroupPlacement placement{.shape = shape};
  placement.layers.assign(layers, worker::ContiguousPlacement(shape));
  BALEEN_RETURN_IF_ERROR(worker::CheckGroupPlacement(placement));
  return placement;
}

BalanceReport CompareBalance(const worker::ExpertCounts& counts,
                             const worker::GroupPlacement& before,
                             const worker::GroupPlacement& after) {
  BALEEN_CHECK(counts.size() == before.layers.size() && counts.size() == after.layers.size(),
               "the placements are of the counted layers");
  BalanceReport report{.shape = after.shape};
  double tokens = 0;
  double weighted_before = 0;
  double weighted_after = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::vector<double> load = LoadOf(counts[i]);
    const BalanceReport::Layer layer = {
        .tokens = std::accumulate(counts[i].begin(), counts[i].end(), std::uint64_t{0}),
        .before = worker::Imbalance(before.shape, before.layers[i], load),
        .after = worker::Imbalance(after.shape, after.layers[i], load)};
    const auto weight = static_cast<double>(layer.tokens);
    tokens += weight;
    weighted_before += weight * layer.before;
    weighted_after += weight * layer.after;
    report.tokens = SaturatingSum(report.tokens, layer.tokens);
    report.layers.push_back(layer);
  }
  if (tokens > 0) {
    report.before = weighted_before / tokens;
    report.after = weighted_after / tokens;
  }
  return report;
}

std::string ToText(const BalanceReport& report, const Style& style) {
  TableColumns table = {{"MoE layer", "tokens", "before", "after"}};
  for (std::size_t i = 0; i < report.layers.size(); ++i) {
    const BalanceReport::Layer& layer = report.layers[i];
    table.push_back({std::to_string(i), std::to_string(layer.tokens), Figure(layer.before),
                     Figure(layer.after)});
  }
  table.push_back(
      {"all", std::to_string(report.tokens), Figure(report.before), Figure(report.after)});
  return fmt::format(
      "{} experts and {} redundant ones over {} ranks: the busiest rank's tokens by "
      "the mean\n\n{}",
      report.shape.experts, report.shape.redundant_experts, report.shape.ranks,
      RenderColumns(table, style));
}

std::string ToJson(const BalanceReport& report) {
  using Json = nlohmann::ordered_json;
  Json layers = Json::array();
  for (const BalanceReport::Layer& layer : report.layers) {
    layers.push_back({{"tokens", layer.tokens}, {"before", layer.before}, {"after", layer.after}});
  }
  const Json json = {{"experts", report.shape.experts},
                     {"ranks", report.shape.ranks},
                     {"redundant_experts", report.shape.redundant_experts},
                     {"tokens", report.tokens},
                     {"before", report.before},
                     {"after", report.after},
                     {"layers", std::move(layers)}};
  return json.dump();
}

}  // namespace baleen::cli
