// Sampling, log-probabilities, and the random numbers behind them.
#include <algorithm>
#include <numeric>
#include <set>

#include "gtest/gtest.h"
#include "kernels/include/philox.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

// The known-answer vectors of Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, GivesThePublishedAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, SamplingBitsDependOnAllOfSeedAndPosition) {
  EXPECT_EQ(SamplingBits(0, 0), 0xe169c58d6627e8d5u);
  const std::set<std::uint64_t> different = {SamplingBits(1, 5), SamplingBits(1, 6),
                                             SamplingBits(2, 5), SamplingBits(1ull << 32, 5),
                                             SamplingBits(0, 5)};
  EXPECT_EQ(different.size(), 5u);
}

struct Spec {
  float temperature = 1.0f;
  std::int64_t top_k = 0;
  float top_p = 1.0f;
};

std::int32_t Draw(const std::vector<float>& logits, const Spec& spec, std::uint64_t bits) {
  std::vector<std::int32_t> ids(logits.size());
  std::vector<std::uint64_t> weights(logits.size());
  return reference::Sample({.vocabulary = static_cast<std::int64_t>(logits.size()),
                            .logits = logits.data(),
                            .temperature = spec.temperature,
                            .top_k = spec.top_k,
                            .top_p = spec.top_p,
                            .random_bits = bits,
                            .scratch_ids = ids.data(),
                            .scratch_weights = weights.data()});
}

std::vector<int> Count(const std::vector<float>& logits, const Spec& spec, int draws) {
  std::vector<int> counts(logits.size());
  for (int i = 0; i < draws; ++i) {
    ++counts[Draw(logits, spec, SamplingBits(42, static_cast<std::uint32_t>(i)))];
  }
  return counts;
}

TEST(Sample, GreedyTakesTheLargestAndTheLowerIdAmongEquals) {
  EXPECT_EQ(Draw({1, 3, 2, 3}, {.temperature = 0}, ~0ull), 1);
  EXPECT_EQ(Draw({5, 5, 5}, {.temperature = 0}, ~0ull), 0);
  EXPECT_EQ(Draw({-5}, {.temperature = 0}, 0), 0);
  EXPECT_EQ(Draw({-0.0f, 0.0f}, {.temperature = 0}, 0), 0);
}

// Chi-squared with 7 degrees of freedom: above 24.3 once in a thousand; the draws are fixed by the
// seed.
TEST(Sample, FrequenciesAreTheSoftmax) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -2.0f, 1.5f, 0.25f};
  constexpr int kDraws = 20000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    const std::vector<int> counts = Count(logits, {.temperature = temperature}, kDraws);
    double sum = 0.0;
    for (const float logit : logits) {
      sum += std::exp(logit / temperature);
    }
    double chi_squared = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double expected = kDraws * std::exp(logits[i] / temperature) / sum;
      chi_squared += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    EXPECT_LT(chi_squared, 24.3) << temperature;
  }
}

TEST(Sample, TopKKeepsTheLargestAndTheLowerIdAmongEquals) {
  const std::vector<int> counts = Count({1, 2, 1, 2, 1}, {.top_k = 3}, 2000);
  EXPECT_GT(counts[0], 0);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[3], 0);
  EXPECT_EQ(counts[2], 0);
  EXPECT_EQ(counts[4], 0);
  EXPECT_EQ(Draw({1, 2, 3}, {.top_k = 1}, ~0ull), 2);
}

// Probabilities 0.4, 0.3, 0.2, 0.1: the smallest set of the most probable that reaches top_p.
TEST(Sample, TopPKeepsTheSmallestSetThatReachesIt) {
  std::vector<float> logits;
  for (const double p : {0.1, 0.4, 0.2, 0.3}) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  const auto kept = [&](float top_p) {
    const std::vector<int> counts = Count(logits, {.top_p = top_p}, 3000);
    std::set<int> ids;
    for (int id = 0; id < 4; ++id) {
      if (counts[id] > 0) {
        ids.insert(id);
      }
    }
    return ids;
  };
  EXPECT_EQ(kept(0.001f), (std::set<int>{1}));
  EXPECT_EQ(kept(0.39f), (std::set<int>{1}));
  EXPECT_EQ(kept(0.41f), (std::set<int>{1, 3}));
  EXPECT_EQ(kept(0.71f), (std::set<int>{1, 2, 3}));
  EXPECT_EQ(kept(0.95f), (std::set<int>{0, 1, 2, 3}));
}

TEST(Sample, TopPAppliesToWhatTopKLeaves) {
  // Of {0.4, 0.3} left by top_k = 2, the first already has a share of 0.57.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f),
                                     std::log(0.1f)};
  const std::vector<int> counts = Count(logits, {.top_k = 2, .top_p = 0.55f}, 1000);
  EXPECT_EQ(counts[0], 1000);
}

TEST(Sample, ExtremeBitsChooseTheFirstAndTheLastToken) {
  const std::vector<float> logits(1000, 0.0f);
  EXPECT_EQ(Draw(logits, {}, 0), 0);
  EXPECT_EQ(Draw(logits, {}, ~0ull), 999);
}

TEST(Sample, FarLogitsNeverWin) {
  std::vector<float> logits(50, -300.0f);
  logits[17] = 300.0f;
  for (std::uint32_t i = 0; i < 100; ++i) {
    EXPECT_EQ(Draw(logits, {.temperature = 2.0f}, SamplingBits(1, i)), 17);
  }
}

TEST(AllFinite, FindsNanAndInfinityAnywhere) {
  for (const float bad : {kNan, -kNan, std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (std::size_t at = 0; at < 67; ++at) {
      std::vector<float> values(67, std::numeric_limits<float>::max());
      EXPECT_TRUE(reference::AllFinite(values.data(), 67));
      values[at] = bad;
      EXPECT_FALSE(reference::AllFinite(values.data(), 67)) << at;
    }
  }
}

TEST(LogProbs, AreNearFloat64AndInOrder) {
  Random random(3);
  for (const std::int64_t vocabulary : {1, 2, 31, 512, 129280}) {
    std::vector<float> logits = random.Floats(vocabulary, 4.0f);
    double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0.0;
    for (const float logit : logits) {
      sum += std::exp(logit - largest);
    }
    const std::int64_t count = std::min<std::int64_t>(20, vocabulary);
    std::vector<std::int32_t> ids(count);
    std::vector<float> top(count, kNan);
    std::vector<std::int32_t> scratch(vocabulary);
    float token_logprob = kNan;
    const auto token = static_cast<std::int32_t>(vocabulary / 2);
    reference::LogProbs({.vocabulary = vocabulary,
                         .logits = logits.data(),
                         .token = token,
                         .token_logprob = &token_logprob,
                         .count = count,
                         .top_ids = ids.data(),
                         .top_logprobs = top.data(),
                         .scratch_ids = scratch.data()});
    const auto exact = [&](std::int32_t id) { return logits[id] - largest - std::log(sum); };
    EXPECT_NEAR(token_logprob, exact(token), 1.5e-6);
    std::vector<std::int32_t> order(vocabulary);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int32_t a, std::int32_t b) { return logits[a] > logits[b]; });
    for (std::int64_t i = 0; i < count; ++i) {
      EXPECT_EQ(ids[i], order[i]);
      EXPECT_NEAR(top[i], exact(ids[i]), 1.5e-6) << vocabulary;
    }
  }
}

TEST(LogProbs, EqualTokensComeInTheOrderOfTheirIds) {
  const std::vector<float> logits = {1, 2, 1, 2};
  std::vector<std::int32_t> ids(4);
  std::vector<float> top(4);
  std::vector<std::int32_t> scratch(4);
  float token_logprob = kNan;
  reference::LogProbs({.vocabulary = 4,
                       .logits = logits.data(),
                       .token = 0,
                       .token_logprob = &token_logprob,
                       .count = 4,
                       .top_ids = ids.data(),
                       .top_logprobs = top.data(),
                       .scratch_ids = scratch.data()});
  EXPECT_EQ(ids, (std::vector<std::int32_t>{1, 3, 0, 2}));
  EXPECT_EQ(top[2], token_logprob);
}

}  // namespace
}  // namespace baleen::kernels
