// When experts are placed anew, and when not.
#include "worker/group/rules/rebalance.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/worker/group/group_test_util.h"

namespace baleen::worker {
namespace {

GroupPlacement PlacementOf(std::int32_t ranks, std::int32_t redundant) {
  const PlacementShape shape = {.experts = 8, .ranks = ranks, .redundant_experts = redundant};
  return {.shape = shape, .layers = std::vector<LayerPlacement>(2, ContiguousPlacement(shape))};
}

const ExpertCounts kUneven = {{100, 100, 100, 100, 100, 100, 4000, 4000},
                              {500, 500, 500, 500, 500, 500, 500, 500}};

TEST(RebalanceTest, OnlyLayersThatGainAreChanged) {
  const GroupPlacement placement = PlacementOf(4, 4);
  const auto proposal = ProposeRebalance(placement, kUneven);
  ASSERT_TRUE(proposal.has_value());
  EXPECT_EQ(proposal->layers_changed, 1u);
  EXPECT_EQ(proposal->layers[1], placement.layers[1]);
  EXPECT_LT(proposal->imbalance_after, 0.95 * proposal->imbalance_before);
  // What has been done needs not be done again.
  GroupPlacement next = placement;
  next.layers = proposal->layers;
  EXPECT_FALSE(ProposeRebalance(next, kUneven).has_value());
}

TEST(RebalanceTest, ASmallGainIsNotWorthTheMove) {
  const GroupPlacement placement = PlacementOf(4, 0);
  // Ranks have 1040, 1000, 1000, 960: one swap would make it even, for 4 %.
  const ExpertCounts counts(2, {520, 520, 500, 500, 500, 500, 480, 480});
  EXPECT_FALSE(ProposeRebalance(placement, counts).has_value());
  EXPECT_TRUE(ProposeRebalance(placement, counts, {.gain_min = 0.03}).has_value());
}

TEST(RebalanceTest, FewTokensAreChance) {
  const GroupPlacement placement = PlacementOf(4, 4);
  const ExpertCounts counts(2, {0, 0, 0, 0, 0, 0, 90, 90});
  EXPECT_FALSE(ProposeRebalance(placement, counts).has_value());
  EXPECT_TRUE(ProposeRebalance(placement, counts, {.tokens_per_expert_min = 20}).has_value());
  EXPECT_FALSE(ProposeRebalance(placement, ExpertCounts(2, std::vector<std::uint64_t>(8)),
                                {.tokens_per_expert_min = 0})
                   .has_value());
}

TEST(RebalanceTest, AProposalAlwaysFitsAndGains) {
  std::mt19937_64 random(5);
  int proposals = 0;
  for (int round = 0; round < 200; ++round) {
    const GroupPlacement placement = PlacementOf(4, round % 2 == 0 ? 0 : 4);
    ExpertCounts counts(2, std::vector<std::uint64_t>(8));
    for (auto& layer : counts) {
      for (std::uint64_t& tokens : layer) tokens = random() % 10'000;
    }
    const auto proposal = ProposeRebalance(placement, counts);
    if (!proposal.has_value()) continue;
    ++proposals;
    GroupPlacement next = placement;
    next.layers = proposal->layers;
    ASSERT_TRUE(CheckGroupPlacement(next).ok());
    const std::vector<double> before = ImbalanceOfLayers(placement, counts);
    const std::vector<double> after = ImbalanceOfLayers(next, counts);
    for (std::size_t layer = 0; layer < 2; ++layer) {
      EXPECT_TRUE(next.layers[layer] == placement.layers[layer] ||
                  after[layer] <= 0.95 * before[layer]);
    }
  }
  EXPECT_GT(proposals, 100);
}

}  // namespace
}  // namespace baleen::worker
