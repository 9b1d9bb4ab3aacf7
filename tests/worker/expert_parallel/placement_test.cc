// Expert placement: valid at any shape, better than contiguous under skewed load, stable.
#include "worker/expert_parallel/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

namespace baleen::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A few experts take most of the tokens, as measured on real traffic: load falls as a power of the
// rank.
std::vector<double> SkewedLoad(std::int32_t experts, std::uint32_t seed) {
  std::vector<double> load(experts);
  for (std::int32_t i = 0; i < experts; ++i) load[i] = 1000.0 / std::pow(i + 1, 0.7);
  std::mt19937 random(seed);
  for (std::size_t i = load.size() - 1; i > 0; --i) std::swap(load[i], load[random() % (i + 1)]);
  return load;
}

std::set<std::int32_t> ExpertsOnRank(const PlacementShape& shape, const LayerPlacement& placement,
                                     std::int32_t rank) {
  const auto first = placement.expert_of_slot().begin() + rank * shape.slots_per_rank();
  return {first, first + shape.slots_per_rank()};
}

TEST(PlacementShape, RefusalsNameTheNumber) {
  const struct {
    PlacementShape shape;
    const char* says;
  } cases[] = {
      {{.experts = 0}, "the number of experts is 0, not 1 to 4096"},
      {{.experts = 8, .ranks = 0}, "the number of ranks is 0, not 1 to 1024"},
      {{.experts = 8, .ranks = 3}, "8 expert slots do not divide by 3 ranks"},
      {{.experts = 8, .ranks = 2, .redundant_experts = 3}, "11 expert slots do not divide by 2"},
      {{.experts = 8, .ranks = 2, .redundant_experts = 10}, "redundant experts is 10, not 0 to 8"},
      {{.experts = 8, .ranks = 2, .redundant_experts = -2}, "redundant experts is -2, not 0 to 8"},
      {{.experts = 8, .ranks = 4, .nodes = 3}, "4 ranks do not divide by 3 nodes"},
      {{.experts = 8, .ranks = 4, .expert_groups = 3},
       "8 experts do not divide by 3 expert groups"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(CheckPlacementShape(c.shape).ToString(), HasSubstr(c.says));
  }
  EXPECT_TRUE(
      CheckPlacementShape(
          {.experts = 256, .ranks = 16, .redundant_experts = 32, .expert_groups = 8, .nodes = 2})
          .ok());
}

TEST(LayerPlacement, KnowsTheSlotsOfEachExpert) {
  const PlacementShape shape{.experts = 3, .ranks = 2, .redundant_experts = 1};
  const auto placement = LayerPlacement::Make(shape, {2, 0, 1, 2});
  ASSERT_TRUE(placement.ok()) << placement.status();
  EXPECT_THAT(placement->SlotsOf(0), ElementsAre(1));
  EXPECT_THAT(placement->SlotsOf(1), ElementsAre(2));
  EXPECT_THAT(placement->SlotsOf(2), ElementsAre(0, 3));
  EXPECT_THAT(LayerPlacement::Make(shape, {2, 0, 1}).status().ToString(),
              HasSubstr("3 slots, must be 4"));
  EXPECT_THAT(LayerPlacement::Make(shape, {2, 0, 3, 1}).status().ToString(),
              HasSubstr("slot 2 has expert 3, not 0 to 2"));
  EXPECT_THAT(LayerPlacement::Make(shape, {2, 0, 0, 2}).status().ToString(),
              HasSubstr("expert 1 has no slot"));
}

TEST(ContiguousPlacement, KeepsTheOrder) {
  EXPECT_THAT(ContiguousPlacement({.experts = 4, .ranks = 2}).expert_of_slot(),
              ElementsAre(0, 1, 2, 3));
  const PlacementShape redundant{.experts = 4, .ranks = 3, .redundant_experts = 2};
  for (std::int32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(ExpertsOnRank(redundant, ContiguousPlacement(redundant), rank).size(), 2u);
  }
}

TEST(BalancedPlacement, EvensOutSkewedLoadAtAnyShape) {
  const PlacementShape shapes[] = {
      {.experts = 256, .ranks = 8},
      {.experts = 256, .ranks = 32, .redundant_experts = 32},
      {.experts = 256, .ranks = 16, .redundant_experts = 32, .expert_groups = 8, .nodes = 2},
      {.experts = 256, .ranks = 12, .redundant_experts = 32, .expert_groups = 8, .nodes = 3},
      {.experts = 64, .ranks = 4, .redundant_experts = 8},
      {.experts = 16, .ranks = 8, .redundant_experts = 8, .expert_groups = 4, .nodes = 2},
  };
  for (const PlacementShape& shape : shapes) {
    ASSERT_TRUE(CheckPlacementShape(shape).ok()) << CheckPlacementShape(shape);
    for (std::uint32_t seed = 0; seed < 20; ++seed) {
      const std::vector<double> load = SkewedLoad(shape.experts, seed);
      const LayerPlacement placement = BalancedPlacement(shape, load);
      const double balanced = Imbalance(shape, placement, load);
      EXPECT_GE(balanced, 1.0);
      EXPECT_LE(balanced, Imbalance(shape, ContiguousPlacement(shape), load));
      EXPECT_EQ(placement, BalancedPlacement(shape, load)) << "a function of its arguments";
    }
  }
}

// The figure that replicas are for: 256 experts on 32 ranks, one of them with 3 % of all tokens.
TEST(BalancedPlacement, ReplicasServeTheBusiest) {
  const std::vector<double> load = SkewedLoad(256, 7);
  const PlacementShape plain{.experts = 256, .ranks = 32};
  const PlacementShape redundant{.experts = 256, .ranks = 32, .redundant_experts = 32};
  const double without = Imbalance(plain, BalancedPlacement(plain, load), load);
  const double with = Imbalance(redundant, BalancedPlacement(redundant, load), load);
  EXPECT_GT(without, 1.5);
  EXPECT_LT(with, 1.1);
  const std::size_t busiest = std::ranges::max_element(load) - load.begin();
  EXPECT_GE(BalancedPlacement(redundant, load).SlotsOf(static_cast<int>(busiest)).size(), 3u);
}

TEST(BalancedPlacement, KeepsExpertGroupsOnANode) {
  const PlacementShape shape{
      .experts = 32, .ranks = 8, .redundant_experts = 16, .expert_groups = 8, .nodes = 4};
  const LayerPlacement placement = BalancedPlacement(shape, SkewedLoad(32, 3));
  for (std::int32_t group = 0; group < 8; ++group) {
    std::set<std::int32_t> nodes;
    for (std::int32_t expert = group * 4; expert < group * 4 + 4; ++expert) {
      for (const std::int32_t slot : placement.SlotsOf(expert)) {
        nodes.insert(slot / shape.slots_per_rank() / 2);
      }
    }
    EXPECT_EQ(nodes.size(), 1u) << "group " << group;
  }
}

TEST(BalancedPlacement, NoLoadIsALoad) {
  const PlacementShape shape{.experts = 8, .ranks = 4, .redundant_experts = 8};
  const std::vector<double> none(8, 0.0);
  const LayerPlacement placement = BalancedPlacement(shape, none);
  for (std::int32_t expert = 0; expert < 8; ++expert) {
    EXPECT_EQ(placement.SlotsOf(expert).size(), 2u);
  }
  EXPECT_EQ(Imbalance(shape, placement, none), 1.0);
}

TEST(Imbalance, IsTheBusiestByTheMean) {
  const PlacementShape shape{.experts = 4, .ranks = 2};
  const std::vector<double> load = {3, 1, 0, 0};
  EXPECT_DOUBLE_EQ(Imbalance(shape, ContiguousPlacement(shape), load), 2.0);
  EXPECT_DOUBLE_EQ(Imbalance(shape, BalancedPlacement(shape, load), load), 1.5);
}

TEST(ReplicaFor, IsEvenAndDependsOnEachArgument) {
  EXPECT_EQ(ReplicaFor(1, 2, 3, 1), 0u);
  EXPECT_EQ(ReplicaFor(1, 2, 3, 5), ReplicaFor(1, 2, 3, 5));
  const auto counts = [](auto replica_of) {
    std::vector<int> seen(3, 0);
    for (std::uint32_t i = 0; i < 30'000; ++i) ++seen[replica_of(i)];
    return seen;
  };
  for (const std::vector<int>& seen :
       {counts([](auto i) { return ReplicaFor(i, 7, 7, 3); }),
        counts([](auto i) { return ReplicaFor(7, i, 7, 3); }),
        counts([](auto i) { return ReplicaFor(7, 7, static_cast<std::int32_t>(i), 3); })}) {
    for (const int count : seen) EXPECT_NEAR(count, 10'000, 400);
  }
}

}  // namespace
}  // namespace baleen::worker
