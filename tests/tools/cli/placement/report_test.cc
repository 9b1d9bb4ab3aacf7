// What a placement is worth, as figures and as text.
#include "tools/cli/placement/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

constexpr worker::PlacementShape kTwoRanks = {.experts = 4, .ranks = 2};

BalanceReport ReportOf(const worker::PlacementShape& shape, const worker::ExpertCounts& counts) {
  return CompareBalance(counts, ContiguousFor(shape, counts.size()).value(),
                        BalancedFor(shape, counts).value());
}

TEST(Balance, ComparesTheBusiestRankWithTheMean) {
  // Contiguous: 30 and 10 tokens, mean 20. Balanced: 20 and 20.
  const BalanceReport report = ReportOf(kTwoRanks, {{20, 10, 0, 10}});
  ASSERT_EQ(report.layers.size(), 1u);
  EXPECT_EQ(report.layers[0].tokens, 40u);
  EXPECT_DOUBLE_EQ(report.layers[0].before, 1.5);
  EXPECT_DOUBLE_EQ(report.layers[0].after, 1.0);
  EXPECT_DOUBLE_EQ(report.before, 1.5);
  EXPECT_DOUBLE_EQ(report.after, 1.0);
}

TEST(Balance, LayersCountByTheirTokens) {
  const BalanceReport report = ReportOf(kTwoRanks, {{20, 10, 0, 10}, {0, 0, 0, 0}, {80, 40, 0, 0}});
  EXPECT_EQ(report.tokens, 160u);
  EXPECT_DOUBLE_EQ(report.layers[1].before, 1.0) << "a layer without tokens is balanced";
  EXPECT_DOUBLE_EQ(report.layers[2].before, 2.0);
  EXPECT_DOUBLE_EQ(report.before, (40 * 1.5 + 120 * 2.0) / 160);
}

TEST(Balance, WithoutTokensNothingIsUneven) {
  const BalanceReport report = ReportOf(kTwoRanks, {{0, 0, 0, 0}});
  EXPECT_DOUBLE_EQ(report.before, 1.0);
  EXPECT_DOUBLE_EQ(report.after, 1.0);
}

TEST(Balance, TheLargestCountsDoNotWrapAround) {
  const std::vector<std::uint64_t> layer(2048, worker::kExpertTokensMax);
  const worker::PlacementShape shape = {.experts = 2048, .ranks = 2};
  const BalanceReport report = ReportOf(shape, worker::ExpertCounts(64, layer));
  EXPECT_EQ(report.tokens, ~std::uint64_t{0});
  EXPECT_NEAR(report.before, 1.0, 1e-9);
}

TEST(Balance, RedundantExpertsTakeTheBusiestApart) {
  const worker::ExpertCounts counts = {{90, 10, 10, 10}};
  const double without = ReportOf(kTwoRanks, counts).after;
  const double with = ReportOf({.experts = 4, .ranks = 2, .redundant_experts = 2}, counts).after;
  EXPECT_GT(without, 1.6);
  EXPECT_LT(with, 1.2);
}

TEST(Balance, AShapeThatDoesNotFitIsRefusedWithItsNumbers) {
  for (const auto& placement : {BalancedFor({.experts = 4, .ranks = 3}, {{1, 2, 3, 4}}),
                                ContiguousFor({.experts = 4, .ranks = 3}, 1)}) {
    EXPECT_EQ(placement.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(placement.status().message()), HasSubstr("4 expert slots"));
  }
}

TEST(Report, IsATableForPeopleAndALineForScripts) {
  const BalanceReport report = ReportOf(kTwoRanks, {{20, 10, 0, 10}, {80, 40, 0, 0}});
  EXPECT_EQ(ToText(report, Style(false)),
            "4 experts and 0 redundant ones over 2 ranks: the busiest rank's tokens by the mean\n"
            "\n"
            "  MoE layer  tokens  before  after\n"
            "          0      40   1.500  1.000\n"
            "          1     120   2.000  1.333\n"
            "        all     160   1.875  1.250\n");
  EXPECT_EQ(
      ToJson(report),
      "{\"experts\":4,\"ranks\":2,\"redundant_experts\":0,\"tokens\":160,\"before\":1.875,"
      "\"after\":1.25,\"layers\":[{\"tokens\":40,\"before\":1.5,\"after\":1.0},{\"tokens\":120,"
      "\"before\":2.0,\"after\":1.3333333333333333}]}");
}

}  // namespace
}  // namespace baleen::cli
