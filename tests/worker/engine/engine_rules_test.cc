// What requests ask for besides tokens: penalties, stop tokens, a least number of tokens, grammars,
// and what their prompts were worth. The fake model's replies change with each of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/fake_grammars.h"
#include "tests/worker/engine/harness.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using contract::ReasonOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int32_t kEos = 1;

GrammarSpec GrammarOf(std::optional<std::int32_t> after_token = std::nullopt) {
  return {.source = {text::GrammarKind::kRegex, "a*"}, .after_token = after_token};
}

FakeModel::Allows AllowsOf(const StartCommand& start) {
  if (!start.grammar.has_value()) return nullptr;
  return [after = start.grammar->after_token](std::span<const std::int32_t> reply,
                                              std::int32_t token) {
    return FakeGrammars::AllowsAfter(after, reply, token);
  };
}

class EngineRulesTest : public testing::Test {
 protected:
  Harness& Make(HarnessOptions options = {}) {
    grammars_ = std::make_unique<FakeGrammars>(64);
    options.grammars = grammars_.get();
    harness_ = std::make_unique<Harness>(options, clock_);
    return *harness_;
  }
  void TearDown() override {
    if (harness_ != nullptr) {
      EXPECT_EQ(harness_->pool->used(), 0u) << "blocks are held by nobody";
    }
  }
  const Heard& Of(const StartCommand& start) { return harness_->sink.Of(start.key); }
  void ExpectError(const StartCommand& start, Reason reason, const std::string& text) {
    const Heard& heard = Of(start);
    ASSERT_TRUE(heard.ended.has_value());
    EXPECT_EQ(ReasonOf(heard.ended->status), reason) << heard.ended->status;
    EXPECT_THAT(heard.ended->status.ToString(), HasSubstr(text));
  }
  void ExpectReply(const StartCommand& start) {
    EXPECT_EQ(Of(start).tokens, harness_->model.Reply(start, AllowsOf(start)));
  }

  ManualClock clock_;
  std::unique_ptr<FakeGrammars> grammars_;
  std::unique_ptr<Harness> harness_;
};

// Each with one more rule than the first, the last with all.
std::vector<StartCommand> RuledStarts(std::uint32_t prompt_tokens, std::uint32_t tokens_max) {
  std::vector<StartCommand> starts(10);
  for (std::size_t i = 0; i < starts.size(); ++i) {
    StartCommand& start = starts[i];
    start = WholeOf(i + 1, prompt_tokens, tokens_max);
    start.prompt = PromptOf(prompt_tokens, 3);
    start.sampling.seed = 4;
    const auto has = [&](std::size_t rule) { return i == rule || i + 1 == starts.size(); };
    if (has(1)) start.sampling.repetition_penalty = 1.25f;
    if (has(2)) start.sampling.frequency_penalty = -1.5f;
    if (has(3)) start.sampling.presence_penalty = 0.75f;
    if (has(4)) start.sampling.min_p = 0.1f;
    if (has(5)) start.sampling.biases = {{3, 1.0f}, {9, -100.0f}};
    if (has(6)) start.grammar = GrammarOf();
    if (has(7)) start.stop_token_ids = {2, 3, 4, 5, 6};
    if (has(8)) {
      start.ignore_eos = false;
      start.stop_token_ids = {2, 3, 4, 5, 6};
      start.tokens_min = tokens_max - 3;
    }
    if (i + 1 == starts.size()) start.prompt_logprobs = 3;
  }
  return starts;
}

TEST_F(EngineRulesTest, EveryRuleReachesTheModelAndChangesTheReply) {
  Harness& h = Make();
  const std::vector<StartCommand> starts = RuledStarts(90, 40);
  for (const StartCommand& start : starts) h.Push(start);
  h.RunUntilIdle();
  for (std::size_t i = 0; i < starts.size(); ++i) {
    ExpectReply(starts[i]);
    if (i > 0) {
      EXPECT_NE(Of(starts[i]).tokens, Of(starts[0]).tokens) << "rule " << i;
    }
  }
}

// Contract 1, with everything that a request can ask for.
TEST_F(EngineRulesTest, RulesGiveTheSameTokensAloneInABatchAndWithAnyChunkBudget) {
  for (const std::uint32_t budget : {1u, 7u, 64u, 512u}) {
    for (const bool crowd : {false, true}) {
      Harness& h =
          Make({.engine = {.scheduler = {.sequences_max = 32, .prefill_tokens_max = budget}}});
      const std::vector<StartCommand> starts = RuledStarts(70, 20);
      for (const StartCommand& start : starts) {
        h.Push(start);
        if (crowd) {
          h.engine.RunOnce();
        } else {
          h.RunUntilIdle();
        }
      }
      h.RunUntilIdle();
      for (const StartCommand& start : starts) ExpectReply(start);
      EXPECT_EQ(Of(starts.back()).prompt_logprobs, h.model.PromptLogprobs(starts.back().prompt, 3));
    }
  }
}

TEST_F(EngineRulesTest, StopTokensEndTheReplyAlsoWhenEndOfSequenceDoesNot) {
  Harness& h = Make();
  for (std::uint64_t number = 1; number <= 20; ++number) {
    StartCommand start = WholeOf(number, 10, 100);
    start.stop_token_ids = {7, 30};
    h.Push(start);
    h.RunUntilIdle();
    const Heard& heard = Of(start);
    ExpectReply(start);
    const std::int32_t last = heard.tokens.back();
    const bool stopped = last == 7 || last == 30;
    EXPECT_EQ(heard.ended->reason, stopped ? EndReason::kStop : EndReason::kLength);
    EXPECT_EQ(heard.ended->tokens, heard.tokens.size()) << "the stop token counts";
  }
  EXPECT_LT(h.metrics.generated_tokens_total.Value(), 1500) << "some replies stop early";
}

TEST_F(EngineRulesTest, NothingEndsAReplyBeforeItsLeastNumberOfTokens) {
  Harness& h = Make();
  int stopped_later = 0;
  for (std::uint64_t number = 1; number <= 40; ++number) {
    StartCommand start = WholeOf(number, 10, 60);
    start.ignore_eos = number % 3 == 0;  // bans the end of the sequence all the same
    start.stop_token_ids = {7, 30, 31, 32, 33, 34};
    start.tokens_min = 25;
    h.Push(start);
    h.RunUntilIdle();
    const Heard& heard = Of(start);
    ExpectReply(start);
    ASSERT_GE(heard.tokens.size(), 25u);
    for (std::size_t i = 0; i < 25; ++i) {
      EXPECT_NE(heard.tokens[i], kEos);
      EXPECT_EQ(std::ranges::count(start.stop_token_ids, heard.tokens[i]), 0);
    }
    stopped_later += heard.tokens.size() > 25 && heard.ended->reason == EndReason::kStop;
  }
  EXPECT_GT(stopped_later, 10);
}

TEST_F(EngineRulesTest, WithoutPenaltiesNothingIsCounted) {
  Harness& h = Make();
  StartCommand plain = WholeOf(1, 50, 10);
  h.Push(plain);
  h.RunUntilIdle();
  for (const auto& step : h.model.steps) EXPECT_EQ(step.at(0).uses, 0u);
  h.model.steps.clear();
  plain.key = KeyOf(2);
  plain.sampling.presence_penalty = 0.5f;
  h.Push(plain);
  h.RunUntilIdle();
  EXPECT_EQ(h.model.steps.front().at(0).uses, 0u) << "the prompt is not looked at";
  EXPECT_GT(h.model.steps.back().at(0).uses, 0u);
  for (const auto& step : h.model.steps) EXPECT_EQ(step.at(0).followers, 0u);
}

TEST_F(EngineRulesTest, ThePromptsLogProbabilitiesComeWholeAndFirst) {
  for (const std::uint32_t prompt : {1u, 2u, 64u, 65u, 130u}) {
    for (const std::uint32_t budget : {1u, 7u, 64u, 512u}) {
      Harness& h = Make({.engine = {.scheduler = {.prefill_tokens_max = budget}}});
      StartCommand start = WholeOf(1, prompt, 3);
      start.prompt_logprobs = prompt % 21;
      h.Push(start);
      StartCommand other = WholeOf(2, prompt, 3);
      h.Push(other);
      h.RunUntilIdle();
      EXPECT_EQ(Of(start).prompt_logprobs, h.model.PromptLogprobs(start.prompt, prompt % 21))
          << "prompt of " << prompt << ", " << budget << " at a time";
      ExpectReply(start);
      ExpectReply(other);
      EXPECT_THAT(Of(other).prompt_logprobs, IsEmpty());
    }
  }
}

// The cache has a prompt's KV, but nothing of what its tokens were worth.
TEST_F(EngineRulesTest, APromptThatIsScoredIsComputedWhole) {
  Harness& h = Make();
  StartCommand start = WholeOf(1, 200, 3);
  start.block_hashes = HashesOf(start.prompt);
  h.Push(start);
  h.RunUntilIdle();
  start.key = KeyOf(2);
  start.prompt_logprobs = 0;
  h.Push(start);
  h.RunUntilIdle();
  EXPECT_EQ(Of(start).prompt_logprobs, h.model.PromptLogprobs(start.prompt, 0));
  EXPECT_EQ(Of(start).ended->cached_tokens, 0u);
  start.key = KeyOf(3);
  start.prompt_logprobs.reset();
  h.Push(start);
  h.RunUntilIdle();
  EXPECT_EQ(Of(start).ended->cached_tokens, 192u);
}

TEST_F(EngineRulesTest, AFaultInsideAPromptEndsItsSequenceOnly) {
  Harness& h = Make({.engine = {.scheduler = {.prefill_tokens_max = 20}}});
  h.model.FaultFollower(63);
  StartCommand start = WholeOf(1, 100, 3);
  start.prompt.assign(100, 5);
  start.prompt[50] = 63;
  start.prompt_logprobs = 2;
  StartCommand other = WholeOf(2, 30, 8);
  h.Push(start);
  h.Push(other);
  h.RunUntilIdle();
  ExpectError(start, Reason::kNumericFault, "no number");
  EXPECT_EQ(Of(start).prompt_logprobs.size(), 41u) << "those of the chunks before";
  EXPECT_THAT(Of(start).tokens, IsEmpty());
  ExpectReply(other);
}

// --- Grammars ---

TEST_F(EngineRulesTest, AGrammarBeginsWithTheReplyOrAfterItsToken) {
  Harness& h = Make();
  for (std::uint64_t number = 1; number <= 20; ++number) {
    StartCommand start = WholeOf(number, 20, 60);
    if (number % 2 == 0) start.prompt_logprobs = 1;
    start.grammar = number % 4 == 0 ? GrammarOf() : GrammarOf(static_cast<std::int32_t>(number));
    h.Push(start);
  }
  h.RunUntilIdle();
  for (std::uint64_t number = 1; number <= 20; ++number) {
    StartCommand start = WholeOf(number, 20, 60);
    start.grammar = number % 4 == 0 ? GrammarOf() : GrammarOf(static_cast<std::int32_t>(number));
    ExpectReply(start);
  }
  EXPECT_GT(grammars_->awaited, 5 * 60);
  EXPECT_LT(grammars_->awaited, 20 * 60) << "not before its token";
  EXPECT_EQ(grammars_->sources.at(0), (text::GrammarSource{text::GrammarKind::kRegex, "a*"}));
}

TEST_F(EngineRulesTest, ASequenceWaitsForItsGrammarAndHoldsNobodyUp) {
  Harness& h = Make();
  grammars_->prepared = false;
  StartCommand waits = WholeOf(1, 20, 10);
  waits.grammar = GrammarOf();
  StartCommand other = WholeOf(2, 20, 10);
  h.Push(waits);
  h.Push(other);
  h.RunUntilIdle();
  EXPECT_THAT(Of(waits).tokens, IsEmpty());
  EXPECT_FALSE(Of(waits).ended.has_value());
  EXPECT_EQ(h.engine.load().sequences_waiting, 1u);
  EXPECT_EQ(h.engine.load().kv_blocks_used, 0u);
  ExpectReply(other);
  grammars_->prepared = true;
  h.RunUntilIdle();
  ExpectReply(waits);
}

TEST_F(EngineRulesTest, WhatWaitsForAGrammarCanBeCancelledAndExpiresAndIsBounded) {
  Harness& h = Make({.engine = {.waiting_max = 3}});
  grammars_->prepared = false;
  std::vector<StartCommand> starts;
  for (std::uint64_t number = 1; number <= 4; ++number) {
    StartCommand& start = starts.emplace_back(WholeOf(number, 20, 10));
    start.grammar = GrammarOf();
    if (number == 2) start.time_left = absl::Seconds(1);
    h.Push(start);
  }
  h.RunUntilIdle();
  ExpectError(starts[3], Reason::kQueueFull, "3");
  h.Push(CancelCommand{.key = starts[0].key});
  clock_.Advance(absl::Seconds(2));
  h.RunUntilIdle();
  EXPECT_EQ(Of(starts[0]).ended->reason, EndReason::kCancelled);
  ExpectError(starts[1], Reason::kDeadlineExceeded, "deadline");
  h.Push(LinkLostCommand{.link = kLink});
  h.RunUntilIdle();
  EXPECT_FALSE(Of(starts[2]).ended.has_value());
  EXPECT_EQ(h.engine.load().sequences_waiting, 0u);
  grammars_->prepared = true;
  h.RunUntilIdle();
  EXPECT_THAT(Of(starts[2]).tokens, IsEmpty());
}

TEST_F(EngineRulesTest, GrammarsThatAreRefusedEndTheirRequest) {
  Harness& h = Make();
  StartCommand start = WholeOf(1, 20, 10);
  start.grammar = GrammarOf();
  grammars_->prepared = absl::InvalidArgumentError("regex: unbalanced");
  h.Push(start);
  h.RunUntilIdle();
  ExpectError(start, Reason::kInvalidRequest, "unbalanced");
  start.key = KeyOf(2);
  grammars_->prepared = contract::MakeStatus(Reason::kInternal, "no vocabulary");
  h.Push(start);
  h.RunUntilIdle();
  ExpectError(start, Reason::kInternal, "no vocabulary");
}

TEST_F(EngineRulesTest, AMaskThatDoesNotComeOrAllowsNothingEndsItsSequenceOnly) {
  Harness& h = Make();
  StartCommand start = WholeOf(1, 20, 50);
  start.grammar = GrammarOf();
  start.block_hashes = HashesOf(start.prompt);
  StartCommand other = WholeOf(2, 20, 50);
  h.Push(start);
  h.Push(other);
  for (int i = 0; i < 5; ++i) h.engine.RunOnce();
  grammars_->mask_status = contract::MakeStatus(Reason::kInternal, "the mask took 2s");
  h.RunUntilIdle();
  ExpectError(start, Reason::kInternal, "the mask took 2s");
  EXPECT_EQ(Of(start).tokens.size(), 5u);
  ExpectReply(other);

  grammars_->mask_status = absl::OkStatus();
  grammars_->allow_nothing = true;
  start.key = KeyOf(3);
  h.Push(start);
  h.RunUntilIdle();
  ExpectError(start, Reason::kInvalidRequest, "no token is allowed");
  EXPECT_THAT(Of(start).tokens, IsEmpty());
}

// A sequence that ended for want of a token took its prompt out of the cache, as one with NaN does.
TEST_F(EngineRulesTest, WantOfATokenSaysNothingAboutKv) {
  Harness& h = Make();
  StartCommand start = WholeOf(1, 100, 50);
  start.block_hashes = HashesOf(start.prompt);
  start.grammar = GrammarOf();
  grammars_->allow_nothing = true;
  h.Push(start);
  h.RunUntilIdle();
  ExpectError(start, Reason::kInvalidRequest, "no token is allowed");
  start.grammar.reset();
  start.key = KeyOf(2);
  h.Push(start);
  h.RunUntilIdle();
  EXPECT_EQ(Of(start).ended->cached_tokens, 64u);
}

TEST_F(EngineRulesTest, WithoutGrammarsARequestWithOneIsRefused) {
  harness_ = std::make_unique<Harness>(HarnessOptions{}, clock_);
  StartCommand start = WholeOf(1, 20, 10);
  start.grammar = GrammarOf();
  harness_->Push(start);
  harness_->RunUntilIdle();
  ExpectError(start, Reason::kInvalidRequest, "without grammars");
}

}  // namespace
}  // namespace baleen::worker
