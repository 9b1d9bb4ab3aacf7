// What a request does to logits before a token is chosen, and what is left to choose from: cases
// computed by hand, and an oracle in double precision that knows nothing of the kernels.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/include/philox.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

struct Rules {
  std::vector<LogitBias> biases;
  std::optional<std::vector<std::uint32_t>> allowed;
  std::vector<TokenUse> uses;
  float repetition = 1.0f;
  float frequency = 0.0f;
  float presence = 0.0f;
  std::vector<std::int32_t> banned;

  float temperature = 1.0f;
  std::int64_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

AdjustLogitsParams ParamsOf(const Rules& rules, const std::vector<float>& logits, float* y) {
  return {.vocabulary = static_cast<std::int64_t>(logits.size()),
          .logits = logits.data(),
          .y = y,
          .biases = rules.biases.data(),
          .bias_count = static_cast<std::int64_t>(rules.biases.size()),
          .allowed = rules.allowed ? rules.allowed->data() : nullptr,
          .allowed_words =
              rules.allowed ? static_cast<std::int64_t>(rules.allowed->size()) : std::int64_t{0},
          .uses = rules.uses.data(),
          .use_count = static_cast<std::int64_t>(rules.uses.size()),
          .repetition_penalty = rules.repetition,
          .frequency_penalty = rules.frequency,
          .presence_penalty = rules.presence,
          .banned = rules.banned.data(),
          .banned_count = static_cast<std::int64_t>(rules.banned.size())};
}

// In place and into other memory, which have to be the same; nothing beside the row is touched.
std::vector<float> Adjusted(std::vector<float> logits, const Rules& rules) {
  std::vector<float> y(logits.size() + 2, 77.0f);
  reference::AdjustLogits(ParamsOf(rules, logits, y.data() + 1));
  EXPECT_EQ(y.front(), 77.0f);
  EXPECT_EQ(y.back(), 77.0f);
  reference::AdjustLogits(ParamsOf(rules, logits, logits.data()));
  EXPECT_EQ(logits, std::vector<float>(y.begin() + 1, y.end() - 1));
  return logits;
}

std::int32_t Choose(const std::vector<float>& logits, const Rules& rules, std::uint64_t bits) {
  std::vector<std::int32_t> ids(logits.size());
  std::vector<std::uint64_t> weights(logits.size());
  return reference::Sample({.vocabulary = static_cast<std::int64_t>(logits.size()),
                            .logits = logits.data(),
                            .temperature = rules.temperature,
                            .top_k = rules.top_k,
                            .top_p = rules.top_p,
                            .min_p = rules.min_p,
                            .random_bits = bits,
                            .scratch_ids = ids.data(),
                            .scratch_weights = weights.data()});
}

// Ids that come up in 3,000 draws.
std::vector<std::int32_t> Drawn(const std::vector<float>& logits, const Rules& rules) {
  std::vector<bool> seen(logits.size());
  for (std::uint32_t i = 0; i < 3000; ++i) seen[Choose(logits, rules, SamplingBits(9, i))] = true;
  std::vector<std::int32_t> ids;
  for (std::size_t id = 0; id < seen.size(); ++id) {
    if (seen[id]) ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

TEST(AdjustLogits, WithoutRulesIsACopy) {
  EXPECT_THAT(Adjusted({1.5f, -2.0f, 0.0f}, {}), ElementsAre(1.5f, -2.0f, 0.0f));
}

TEST(AdjustLogits, BiasesAreAddedAndAHundredBelowBans) {
  EXPECT_THAT(
      Adjusted({1, 2, 3, 4, kLargest, -kLargest},
               {.biases = {{1, 100.0f}, {2, -99.5f}, {3, -100.0f}, {4, 100.0f}, {5, -99.0f}}}),
      ElementsAre(1.0f, 102.0f, -96.5f, -kInfinity, kLargest, -kLargest));
  EXPECT_EQ(Choose(Adjusted({9, 0, 0}, {.biases = {{2, 100.0f}}}), {.temperature = 2.0f}, ~0ull),
            2);
}

TEST(AdjustLogits, AMaskBansTokensWithoutTheirBitAndBeyondItsEnd) {
  std::vector<float> logits(70);
  std::iota(logits.begin(), logits.end(), -35.0f);
  std::vector<float> expected(70, -kInfinity);
  for (const int allowed : {0, 31, 32, 33, 63}) expected[allowed] = logits[allowed];
  EXPECT_EQ(Adjusted(logits, {.allowed = {{0x80000001u, 0x80000003u}}}), expected);
  expected[69] = logits[69];
  EXPECT_EQ(Adjusted(logits, {.allowed = {{0x80000001u, 0x80000003u, 1u << 5, 0xffffffffu}}}),
            expected);
  EXPECT_EQ(Adjusted(logits, {.allowed = {{0xffffffffu, 0xffffffffu, 0xffffffffu}}}), logits);
}

TEST(AdjustLogits, RepetitionDividesPositiveAndMultipliesNegativeLogitsOfWhatWasWritten) {
  const std::vector<TokenUse> uses = {{.token = 0, .in_prompt = true},
                                      {.token = 1, .in_reply = 3},
                                      {.token = 2, .in_reply = 1, .in_prompt = true},
                                      {.token = 3}};
  EXPECT_THAT(Adjusted({4, -4, 0, 4, 4}, {.uses = uses, .repetition = 2.0f}),
              ElementsAre(2.0f, -8.0f, 0.0f, 4.0f, 4.0f));
  EXPECT_THAT(Adjusted({4, -4, 0, 4, 4}, {.uses = uses, .repetition = 0.5f}),
              ElementsAre(8.0f, -2.0f, 0.0f, 4.0f, 4.0f));
}

TEST(AdjustLogits, FrequencyCountsTheReplyAndPresenceOnlyLooksAtIt) {
  const std::vector<TokenUse> uses = {{.token = 0, .in_prompt = true},
                                      {.token = 1, .in_reply = 3},
                                      {.token = 2, .in_reply = 1, .in_prompt = true}};
  EXPECT_THAT(Adjusted({1, 1, 1, 1}, {.uses = uses, .frequency = 0.5f, .presence = 0.25f}),
              ElementsAre(1.0f, -0.75f, 0.25f, 1.0f));
  EXPECT_THAT(Adjusted({1, 1, 1, 1}, {.uses = uses, .frequency = -2.0f, .presence = -1.0f}),
              ElementsAre(1.0f, 8.0f, 4.0f, 1.0f));
}

// Another order would give 0.5 - 3 for token 0, and (2 - 1) / 2 for token 1.
TEST(AdjustLogits, BiasComesBeforeRepetitionAndThatBeforeFrequency) {
  EXPECT_THAT(
      Adjusted({1, 2, 1}, {.biases = {{0, -3.0f}, {2, 1.0f}},
                           .uses = {{.token = 0, .in_prompt = true}, {.token = 1, .in_reply = 1}},
                           .repetition = 2.0f,
                           .frequency = 1.0f}),
      ElementsAre(-4.0f, 0.0f, 2.0f));
}

TEST(AdjustLogits, WhatIsBannedStaysBanned) {
  const std::vector<float> y =
      Adjusted({1, 1, 1, 1}, {.biases = {{0, 100.0f}, {1, -100.0f}, {2, 50.0f}},
                              .allowed = {{0b1110u}},
                              .uses = {{.token = 0, .in_reply = 9},
                                       {.token = 1, .in_reply = 9},
                                       {.token = 2, .in_reply = 9}},
                              .repetition = 1e-40f,  // counts as 0, which times infinity is NaN
                              .frequency = -2.0f,
                              .presence = -2.0f,
                              .banned = {2, 2}});
  EXPECT_THAT(y, ElementsAre(-kInfinity, -kInfinity, -kInfinity, 1.0f));
}

TEST(AdjustLogits, NothingBecomesInfiniteThatIsNotBanned) {
  const std::vector<TokenUse> uses = {{.token = 0, .in_reply = 1}, {.token = 1, .in_reply = 1}};
  for (const float repetition : {1e-45f, 1e-30f, 0.1f, 2.0f}) {
    for (const float frequency : {-2.0f, 2.0f}) {
      for (const float logit : {kLargest, 1.0f, 1e-45f}) {
        const std::vector<float> y = Adjusted(
            {logit, -logit}, {.uses = uses, .repetition = repetition, .frequency = frequency});
        EXPECT_TRUE(reference::AllFinite(y.data(), 2)) << logit << " " << repetition;
      }
    }
  }
}

TEST(Sample, ChoosesNoTokenWhenAllAreBanned) {
  const std::vector<float> none(40, -kInfinity);
  for (const float temperature : {0.0f, 0.01f, 2.0f}) {
    EXPECT_EQ(Choose(none, {.temperature = temperature}, 0), -1);
    EXPECT_EQ(
        Choose(none, {.temperature = temperature, .top_k = 3, .top_p = 0.5f, .min_p = 1.0f}, ~0ull),
        -1);
  }
}

TEST(Sample, NeverChoosesABannedToken) {
  std::vector<float> logits(40, -kInfinity);
  logits[5] = logits[30] = -1000.0f;
  EXPECT_EQ(Choose(logits, {.temperature = 0.0f}, 0), 5) << "the lower id among equals";
  EXPECT_THAT(Drawn(logits, {}), ElementsAre(5, 30));
  EXPECT_THAT(Drawn(logits, {.top_k = 10}), ElementsAre(5, 30)) << "more than there are";
  EXPECT_THAT(Drawn(logits, {.top_k = 10, .top_p = 0.999f}), ElementsAre(5, 30));
  EXPECT_THAT(Drawn(logits, {.min_p = 1e-9f}), ElementsAre(5, 30));
  EXPECT_THAT(Drawn(logits, {.top_k = 1}), ElementsAre(5));
}

// Probabilities 0.4, 0.3, 0.2, 0.1 of tokens 1, 3, 2, 0.
std::vector<float> FourLogits() {
  return {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
}

TEST(Sample, MinPIsAShareOfTheLargestProbability) {
  EXPECT_THAT(Drawn(FourLogits(), {.min_p = 0.2f}), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.min_p = 0.26f}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.min_p = 0.51f}), ElementsAre(1, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.min_p = 0.76f}), ElementsAre(1));
  EXPECT_THAT(Drawn(FourLogits(), {.min_p = 1.0f}), ElementsAre(1));
}

TEST(Sample, MinPOfOneKeepsAllThatEqualTheLargest) {
  EXPECT_THAT(Drawn({2, 1, 2, 1.999f, 2}, {.min_p = 1.0f}), ElementsAre(0, 2, 4));
  EXPECT_THAT(Drawn({7, 7, 7}, {.min_p = 1.0f}), ElementsAre(0, 1, 2));
  EXPECT_THAT(Drawn({7, 7, 7}, {.top_k = 2, .min_p = 1.0f}), ElementsAre(0, 1));
}

// 0.1 is a quarter of 0.4, and at temperature 2 half of it.
TEST(Sample, MinPLooksAtProbabilitiesAfterTemperature) {
  EXPECT_THAT(Drawn(FourLogits(), {.temperature = 1.0f, .min_p = 0.45f}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.temperature = 2.0f, .min_p = 0.45f}), ElementsAre(0, 1, 2, 3));
}

// Of the whole, {1, 3, 2} reach 0.8. Of what min-p leaves, {1, 3} would.
TEST(Sample, TopPIsAShareOfWhatTopKLeavesBeforeMinP) {
  EXPECT_THAT(Drawn(FourLogits(), {.top_p = 0.8f, .min_p = 0.45f}), ElementsAre(1, 2, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.top_p = 0.8f, .min_p = 0.6f}), ElementsAre(1, 3));
  EXPECT_THAT(Drawn(FourLogits(), {.top_k = 2, .min_p = 0.2f}), ElementsAre(1, 3));
}

// --- The oracle ---

struct Candidate {
  std::size_t id = 0;
  double logit = 0.0;
  double probability = 0.0;  // relative to the most probable one
};

std::vector<double> OracleLogits(const std::vector<float>& logits, const Rules& rules) {
  const double banned = -std::numeric_limits<double>::infinity();
  std::vector<double> y(logits.begin(), logits.end());
  for (const LogitBias& bias : rules.biases) {
    y[bias.token] = bias.bias == -100.0f ? banned : y[bias.token] + bias.bias;
  }
  for (std::size_t id = 0; rules.allowed && id < y.size(); ++id) {
    const bool covered = id / 32 < rules.allowed->size();
    if (!covered || ((*rules.allowed)[id / 32] & (1u << id % 32)) == 0) y[id] = banned;
  }
  for (const TokenUse& use : rules.uses) {
    double& logit = y[use.token];
    if (use.in_prompt || use.in_reply > 0) {
      logit = logit > 0 ? logit / rules.repetition : logit * rules.repetition;
    }
    logit -= double{rules.frequency} * use.in_reply + (use.in_reply > 0 ? rules.presence : 0.0f);
  }
  for (const std::int32_t id : rules.banned) y[id] = banned;
  return y;
}

// What may be chosen, in the order of ids; nothing when the choice hangs on a border so close that
// rounding decides.
std::optional<std::vector<Candidate>> OracleCandidates(const std::vector<double>& logits,
                                                       const Rules& rules) {
  constexpr double kClose = 1e-5;
  std::vector<Candidate> all;
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (std::isfinite(logits[id])) all.push_back({.id = id, .logit = logits[id]});
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  if (rules.top_k > 0 && all.size() > static_cast<std::size_t>(rules.top_k)) {
    if (all[rules.top_k - 1].logit - all[rules.top_k].logit < kClose) return std::nullopt;
    all.resize(rules.top_k);
  }
  double total = 0.0;
  for (Candidate& candidate : all) {
    candidate.probability = std::exp((candidate.logit - all[0].logit) / rules.temperature);
    total += candidate.probability;
  }
  double sum = 0.0;
  std::size_t kept = 0;
  while (kept < all.size()) {
    sum += all[kept++].probability;
    if (std::abs(sum / total - rules.top_p) < kClose && rules.top_p < 1.0f) return std::nullopt;
    if (rules.top_p < 1.0f && sum >= rules.top_p * total) break;
  }
  all.resize(kept);
  for (const Candidate& candidate : all) {
    if (std::abs(candidate.probability - rules.min_p) < kClose && candidate.id != all[0].id) {
      return std::nullopt;
    }
  }
  std::erase_if(all, [&](const Candidate& c) { return c.probability < rules.min_p; });
  std::ranges::sort(all, {}, &Candidate::id);
  return all;
}

// The token at the share `at` of all candidates; nothing next to a border.
std::optional<std::size_t> OracleChoice(const std::vector<Candidate>& candidates, double at) {
  double total = 0.0;
  for (const Candidate& candidate : candidates) total += candidate.probability;
  double sum = 0.0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.probability / total;
    if (std::abs(sum - at) < 1e-5) return std::nullopt;
    if (sum > at) return candidate.id;
  }
  return std::nullopt;
}

Rules RandomRules(Random& random, std::int32_t vocabulary) {
  Rules rules;
  const auto chance = [&](std::uint64_t of) { return random.Below(of) == 0; };
  const auto real = [&](float low, float high) {
    return low + (high - low) * static_cast<float>(random.Below(1 << 20)) / (1 << 20);
  };
  for (std::int32_t id = 0; id < vocabulary; ++id) {
    if (chance(9)) rules.biases.push_back({id, chance(4) ? -100.0f : real(-8, 8)});
    const auto times = static_cast<std::uint32_t>(random.Below(4));
    if (chance(3)) rules.uses.push_back({id, times, chance(2)});
    if (chance(15)) rules.banned.push_back(id);
  }
  if (chance(2)) {
    rules.allowed.emplace();
    for (std::int32_t i = 0; i < vocabulary; i += 32) {
      rules.allowed->push_back(static_cast<std::uint32_t>(random.Below(1ull << 32)));
    }
  }
  if (chance(2)) rules.repetition = real(0.5f, 2.0f);
  if (chance(2)) rules.frequency = real(-2, 2);
  if (chance(2)) rules.presence = real(-2, 2);
  rules.temperature = real(0.2f, 2.0f);
  if (chance(2)) rules.top_k = 1 + static_cast<std::int64_t>(random.Below(vocabulary));
  if (chance(2)) rules.top_p = real(0.05f, 1.0f);
  if (chance(2)) rules.min_p = real(0.0f, 1.0f);
  return rules;
}

TEST(AdjustLogits, AgreesWithAnOracleInDoublePrecisionDownToTheTokenChosen) {
  Random random(20);
  int compared = 0;
  int none = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto vocabulary = static_cast<std::int32_t>(1 + random.Below(90));
    const std::vector<float> logits = random.Floats(vocabulary, 4.0f);
    const Rules rules = RandomRules(random, vocabulary);
    const std::vector<float> adjusted = Adjusted(logits, rules);
    const std::vector<double> oracle = OracleLogits(logits, rules);
    for (std::int32_t id = 0; id < vocabulary; ++id) {
      ASSERT_EQ(std::isfinite(adjusted[id]), std::isfinite(oracle[id]));
      if (std::isfinite(oracle[id])) {
        ASSERT_NEAR(adjusted[id], oracle[id], 1e-5);
      }
    }
    const auto candidates = OracleCandidates(oracle, rules);
    if (!candidates) continue;
    for (int draw = 0; draw < 8; ++draw) {
      const std::uint64_t bits = SamplingBits(round, static_cast<std::uint32_t>(draw));
      const std::int32_t chosen = Choose(adjusted, rules, bits);
      if (candidates->empty()) {
        ASSERT_EQ(chosen, -1);
        ++none;
        continue;
      }
      const auto expected = OracleChoice(*candidates, static_cast<double>(bits) * 0x1p-64);
      if (!expected) continue;
      ASSERT_EQ(chosen, static_cast<std::int32_t>(*expected)) << "round " << round;
      ++compared;
    }
  }
  EXPECT_GT(compared, 12'000);
  EXPECT_GT(none, 50);
}

}  // namespace
}  // namespace baleen::kernels
