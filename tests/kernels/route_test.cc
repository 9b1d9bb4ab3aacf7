// Choice of experts: against a sort over float64 scores where there are no ties, and by hand where
// there are.
#include <algorithm>
#include <numeric>
#include <string>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

struct Chosen {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
};

Chosen Choose(RouteParams params, const std::vector<float>& logits) {
  params.rows = static_cast<std::int64_t>(logits.size()) / params.experts;
  Chosen chosen{.ids = std::vector<std::int32_t>(params.rows * params.slots_per_row, -1),
                .weights = std::vector<float>(params.rows * params.slots_per_row, kNan)};
  params.logits = logits.data();
  params.ids = chosen.ids.data();
  params.weights = chosen.weights.data();
  reference::Route(params);
  return chosen;
}

std::vector<std::int64_t> Descending(const std::vector<double>& values) {
  std::vector<std::int64_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return values[a] > values[b]; });
  return order;
}

std::vector<double> ExactScores(const RouteParams& params, const float* logits) {
  std::vector<double> scores(params.experts);
  double sum = 0.0;
  for (std::int64_t i = 0; i < params.experts; ++i) {
    const double logit = logits[i];
    scores[i] =
        params.score == ExpertScore::kSigmoid ? 1.0 / (1.0 + std::exp(-logit)) : std::exp(logit);
    sum += scores[i];
  }
  for (double& score : scores) {
    score /= params.score == ExpertScore::kSigmoid ? 1.0 : sum;
  }
  return scores;
}

// Experts in order of preference, and the scores, all in float64.
std::vector<std::int64_t> ExactChoice(const RouteParams& params,
                                      const std::vector<double>& scores) {
  const std::int64_t size = params.experts / params.groups;
  std::vector<double> choices = scores;
  for (std::int64_t i = 0; i < params.experts; ++i) {
    choices[i] += params.bias == nullptr ? 0.0 : params.bias[i];
  }
  std::vector<double> ratings(params.groups);
  for (std::int64_t group = 0; group < params.groups; ++group) {
    std::vector<double> members(choices.begin() + group * size,
                                choices.begin() + (group + 1) * size);
    std::sort(members.rbegin(), members.rend());
    ratings[group] = params.group_score == GroupScore::kMax ? members[0] : members[0] + members[1];
  }
  const std::vector<std::int64_t> best = Descending(ratings);
  std::vector<double> allowed(params.experts, -1e300);
  for (std::int64_t i = 0; i < params.groups_kept; ++i) {
    std::copy_n(choices.begin() + best[i] * size, size, allowed.begin() + best[i] * size);
  }
  return Descending(allowed);
}

TEST(Route, ChoosesAsFloat64Does) {
  Random random(1);
  const std::vector<float> bias = random.Floats(256, 0.1f);
  for (const ExpertScore score : {ExpertScore::kSigmoid, ExpertScore::kSoftmax}) {
    for (const GroupScore group_score : {GroupScore::kTopTwoSum, GroupScore::kMax}) {
      for (const bool normalise : {true, false}) {
        for (const auto& [experts, groups, kept, slots] :
             {std::array{16, 4, 2, 4}, {256, 8, 4, 8}, {8, 1, 1, 8}, {64, 1, 1, 6}, {6, 3, 1, 2}}) {
          SCOPED_TRACE(std::to_string(experts) + "/" + std::to_string(groups));
          const RouteParams params{.experts = experts,
                                   .slots_per_row = slots,
                                   .groups = groups,
                                   .groups_kept = kept,
                                   .score = score,
                                   .group_score = group_score,
                                   .normalise = normalise,
                                   .scale = 2.5f,
                                   .bias = normalise ? bias.data() : nullptr};
          const std::vector<float> logits = random.Floats(20 * experts, 2.0f);
          const Chosen chosen = Choose(params, logits);
          for (std::int64_t row = 0; row < 20; ++row) {
            const std::vector<double> scores = ExactScores(params, logits.data() + row * experts);
            const std::vector<std::int64_t> order = ExactChoice(params, scores);
            double sum = normalise ? 0.0 : 1.0;
            for (std::int64_t slot = 0; slot < slots && normalise; ++slot) {
              sum += scores[order[slot]];
            }
            for (std::int64_t slot = 0; slot < slots; ++slot) {
              ASSERT_EQ(chosen.ids[row * slots + slot], order[slot]) << row << ", " << slot;
              const double exact = scores[order[slot]] / sum * 2.5;
              ASSERT_NEAR(chosen.weights[row * slots + slot], exact, 16 * 0x1p-24 * exact);
            }
          }
        }
      }
    }
  }
}

TEST(Route, TiesGoToTheLowerId) {
  const Chosen chosen = Choose({.experts = 8, .slots_per_row = 3, .groups = 1, .groups_kept = 1},
                               std::vector<float>(8));
  EXPECT_EQ(chosen.ids, (std::vector<std::int32_t>{0, 1, 2}));
  const Chosen later = Choose({.experts = 8, .slots_per_row = 3, .groups = 1, .groups_kept = 1},
                              {0, 1, 0, 2, 1, 0, 1, 0});
  EXPECT_EQ(later.ids, (std::vector<std::int32_t>{3, 1, 4}));
}

TEST(Route, TiedGroupsGoToTheLowerGroup) {
  // Groups {0,1}, {2,3}, {4,5}, {6,7} with equal ratings in groups 1 and 3, and a lower one in 0
  // and 2.
  const std::vector<float> logits = {0, 0, 1, 2, 0, 1, 2, 1};
  for (const GroupScore group_score : {GroupScore::kTopTwoSum, GroupScore::kMax}) {
    const Chosen chosen = Choose({.experts = 8,
                                  .slots_per_row = 2,
                                  .groups = 4,
                                  .groups_kept = 1,
                                  .group_score = group_score},
                                 logits);
    EXPECT_EQ(chosen.ids, (std::vector<std::int32_t>{3, 2}));
  }
}

TEST(Route, TheBiasChoosesButDoesNotWeigh) {
  const std::vector<float> bias = {0, 0, 0, 10};
  const Chosen chosen =
      Choose({.experts = 4, .slots_per_row = 2, .bias = bias.data()}, {3, 0, 0, -3});
  EXPECT_EQ(chosen.ids, (std::vector<std::int32_t>{3, 0}));
  EXPECT_NEAR(chosen.weights[0], 1.0 / (1.0 + std::exp(3.0)), 1e-7);
  EXPECT_NEAR(chosen.weights[1], 1.0 / (1.0 + std::exp(-3.0)), 1e-7);
}

TEST(Route, IdsStayValidWhenLogitsAreNot) {
  for (const float bad : {kNan, std::numeric_limits<float>::infinity()}) {
    for (const ExpertScore score : {ExpertScore::kSigmoid, ExpertScore::kSoftmax}) {
      const Chosen chosen = Choose({.experts = 16,
                                    .slots_per_row = 4,
                                    .groups = 4,
                                    .groups_kept = 2,
                                    .score = score,
                                    .normalise = true},
                                   std::vector<float>(16, bad));
      std::vector<std::int32_t> ids = chosen.ids;
      std::sort(ids.begin(), ids.end());
      EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end()) << "four different experts";
      EXPECT_GE(ids.front(), 0);
      EXPECT_LT(ids.back(), 16);
    }
  }
}

TEST(Route, RowsDoNotDependOnTheirNumber) {
  Random random(2);
  const RouteParams params{
      .experts = 32, .slots_per_row = 4, .groups = 8, .groups_kept = 3, .normalise = true};
  const std::vector<float> logits = random.Floats(33 * 32);
  const Chosen all = Choose(params, logits);
  for (std::int64_t rows = 1; rows <= 33; ++rows) {
    const Chosen some = Choose(params, std::vector<float>(logits.end() - rows * 32, logits.end()));
    EXPECT_TRUE(std::equal(some.ids.begin(), some.ids.end(), all.ids.end() - rows * 4));
    EXPECT_TRUE(std::equal(some.weights.begin(), some.weights.end(), all.weights.end() - rows * 4));
  }
}

}  // namespace
}  // namespace baleen::kernels
