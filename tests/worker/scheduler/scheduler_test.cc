// The plan of a step, as a table of situations and as rules over random ones.
#include "worker/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace baleen::worker {
namespace {

using Chunks = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // sequence, tokens

struct Case {
  std::string name;
  std::vector<RunningSequence> running;
  std::vector<WaitingSequence> waiting;
  std::uint32_t blocks_free = 100;
  SchedulerLimits limits = {.sequences_max = 4, .prefill_tokens_max = 100};
  // Expected:
  std::uint32_t admissions = 0;
  std::vector<std::uint32_t> decode;
  Chunks prefill;
};

constexpr RunningSequence kDecoding{.decoding = true};
constexpr RunningSequence kIdle{};  // receiving or handing over
constexpr RunningSequence Prompt(std::uint32_t tokens) { return {.prompt_tokens_left = tokens}; }
constexpr WaitingSequence Wants(std::uint32_t blocks, std::uint32_t tokens) {
  return {.blocks_needed = blocks, .prompt_tokens_left = tokens};
}

std::vector<Case> Cases() {
  return {
      {.name = "nothing to do"},
      {.name = "idle sequences compute nothing", .running = {kIdle, kIdle}},
      {.name = "every decoding sequence gets its token",
       .running = {kDecoding, kIdle, kDecoding},
       .decode = {0, 2}},
      {.name = "a long prompt is cut to the budget",
       .running = {Prompt(250)},
       .prefill = {{0, 100}}},
      {.name = "what is left goes to the next prompt",
       .running = {Prompt(70), Prompt(70), Prompt(70)},
       .prefill = {{0, 70}, {1, 30}}},
      {.name = "decode rows do not eat from the prefill budget",
       .running = {kDecoding, kDecoding, kDecoding, Prompt(5)},
       .limits = {.sequences_max = 4, .prefill_tokens_max = 1},
       .decode = {0, 1, 2},
       .prefill = {{3, 1}}},
      {.name = "an admitted prompt starts in the same step",
       .running = {kDecoding},
       .waiting = {Wants(1, 40)},
       .admissions = 1,
       .decode = {0},
       .prefill = {{1, 40}}},
      {.name = "an admitted decode leg computes nothing yet",
       .waiting = {Wants(3, 0)},
       .admissions = 1},
      {.name = "admission stops at the places",
       .running = {kIdle, kIdle, kIdle},
       .waiting = {Wants(1, 1), Wants(1, 1)},
       .admissions = 1,
       .prefill = {{3, 1}}},
      {.name = "the head waits for its blocks, and everyone behind it too",
       .waiting = {Wants(11, 5), Wants(1, 5)},
       .blocks_free = 10},
      {.name = "blocks are counted down",
       .waiting = {Wants(6, 5), Wants(4, 5), Wants(1, 5)},
       .blocks_free = 10,
       .admissions = 2,
       .prefill = {{0, 5}, {1, 5}}},
      {.name = "admitted without budget: it waits with its blocks",
       .running = {Prompt(100)},
       .waiting = {Wants(1, 5)},
       .admissions = 1,
       .prefill = {{0, 100}}},
  };
}

Chunks ChunksOf(const Plan& plan) {
  Chunks chunks;
  for (const PrefillChunk& chunk : plan.prefill) chunks.emplace_back(chunk.sequence, chunk.tokens);
  return chunks;
}

TEST(PlanStep, Table) {
  for (const Case& c : Cases()) {
    const Plan plan = PlanStep(
        {.running = c.running, .waiting = c.waiting, .blocks_free = c.blocks_free}, c.limits);
    EXPECT_EQ(plan.admissions, c.admissions) << c.name;
    EXPECT_EQ(plan.decode, c.decode) << c.name;
    EXPECT_EQ(ChunksOf(plan), c.prefill) << c.name;
  }
}

// Whatever the situation: budgets hold, no row appears twice, and whoever can compute makes
// progress within bounds.
TEST(PlanStep, RulesHoldOverRandomSituations) {
  const std::uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 5000; ++round) {
    const SchedulerLimits limits = {
        .sequences_max = 1 + static_cast<std::uint32_t>(random() % 8),
        .prefill_tokens_max = 1 + static_cast<std::uint32_t>(random() % 200)};
    std::vector<RunningSequence> running(random() % (limits.sequences_max + 1));
    for (RunningSequence& r : running) {
      r = random() % 2 ? kDecoding : Prompt(static_cast<std::uint32_t>(random() % 300));
    }
    std::vector<WaitingSequence> waiting(random() % 6);
    for (WaitingSequence& w : waiting) {
      w = Wants(static_cast<std::uint32_t>(random() % 9),
                static_cast<std::uint32_t>(random() % 300));
    }
    const auto blocks_free = static_cast<std::uint32_t>(random() % 20);
    const Plan plan =
        PlanStep({.running = running, .waiting = waiting, .blocks_free = blocks_free}, limits);

    ASSERT_LE(running.size() + plan.admissions, limits.sequences_max);
    std::uint32_t blocks = 0;
    for (std::uint32_t i = 0; i < plan.admissions; ++i) blocks += waiting[i].blocks_needed;
    ASSERT_LE(blocks, blocks_free);
    std::size_t decoding = 0;
    for (const RunningSequence& r : running) decoding += r.decoding ? 1 : 0;
    ASSERT_EQ(plan.decode.size(), decoding) << "every decoding sequence, in every step";
    std::uint32_t tokens = 0, last = 0;
    for (const PrefillChunk& chunk : plan.prefill) {
      ASSERT_GT(chunk.tokens, 0u);
      ASSERT_TRUE(tokens == 0 || chunk.sequence > last) << "oldest first, once each";
      last = chunk.sequence;
      tokens += chunk.tokens;
    }
    ASSERT_LE(tokens, limits.prefill_tokens_max);
  }
}

}  // namespace
}  // namespace baleen::worker
