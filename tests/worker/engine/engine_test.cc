// The engine on one rank: replies, ends, limits and faults, one situation at a time.
#include "worker/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "proto/contract/status.h"
#include "tests/worker/engine/harness.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using contract::ReasonOf;
using testing::ElementsAre;
using testing::HasSubstr;

class EngineTest : public testing::Test {
 protected:
  Harness& Make(const HarnessOptions& options = {}) {
    harness_ = std::make_unique<Harness>(options, clock_);
    return *harness_;
  }
  void TearDown() override {
    if (harness_ == nullptr) return;
    EXPECT_EQ(harness_->pool->used(), 0u) << "blocks are held by nobody";
    EXPECT_EQ(harness_->metrics.kv_blocks_used.Value(), 0);
  }

  ManualClock clock_;
  std::unique_ptr<Harness> harness_;
};

void ExpectError(const Heard& heard, Reason reason, const std::string& text) {
  ASSERT_TRUE(heard.ended.has_value());
  EXPECT_EQ(heard.ended->reason, EndReason::kError);
  EXPECT_EQ(ReasonOf(heard.ended->status), reason) << heard.ended->status;
  EXPECT_THAT(heard.ended->status.ToString(), HasSubstr(text));
}

TEST_F(EngineTest, AReplyIsTheModelsAndEndsByLength) {
  Harness& h = Make();
  const StartCommand start = WholeOf(1, 100, 20);
  h.Push(start);
  h.RunUntilIdle();
  const Heard& heard = h.sink.Of(start.key);
  EXPECT_EQ(heard.tokens, h.model.Reply(start.prompt, start.sampling, 20, true));
  EXPECT_EQ(heard.sequences.front(), 0u);
  ASSERT_TRUE(heard.ended.has_value());
  EXPECT_EQ(heard.ended->reason, EndReason::kLength);
  EXPECT_EQ(h.metrics.prompt_tokens_total.Value(), 100);
  EXPECT_EQ(h.metrics.generated_tokens_total.Value(), 20);
  EXPECT_EQ(h.metrics.steps_total.Value(), 20);  // the first token comes with the prompt's step
  EXPECT_EQ(h.Outcome("finished"), 1);
}

// Rows were once anonymous, so that all requests took the same replica of an expert.
TEST_F(EngineTest, RowsNameTheirRequestTheSameInEveryAttempt) {
  Harness& h = Make();
  for (const contract::RequestKey key : {KeyOf(1), KeyOf(2), KeyOf(1, 2)}) {
    StartCommand start = WholeOf(key.id.number, 10, 3);
    start.key = key;
    h.Push(start);
    h.RunUntilIdle();
  }
  ASSERT_EQ(h.model.steps.size(), 9u);
  const auto request = [&](std::size_t step) { return h.model.steps[step].at(0).request; };
  for (const std::size_t step : {1, 2, 6, 7, 8}) EXPECT_EQ(request(step), request(0));
  for (const std::size_t step : {4, 5}) EXPECT_EQ(request(step), request(3));
  EXPECT_NE(request(0), request(3));
}

TEST_F(EngineTest, EndOfSequenceStopsUnlessIgnored) {
  Harness& h = Make();
  for (std::uint64_t number = 1; number <= 40; ++number) {
    StartCommand start = WholeOf(number, 10, 100);
    start.ignore_eos = number % 2 == 0;
    h.Push(start);
    h.RunUntilIdle();
    const Heard& heard = h.sink.Of(start.key);
    const auto reply = h.model.Reply(start.prompt, start.sampling, 100, start.ignore_eos);
    EXPECT_EQ(heard.tokens, reply);
    const bool stopped = !start.ignore_eos && reply.back() == 1;
    EXPECT_EQ(heard.ended->reason, stopped ? EndReason::kStop : EndReason::kLength);
  }
  EXPECT_GT(h.metrics.generated_tokens_total.Value(), 2000);
  EXPECT_LT(h.metrics.generated_tokens_total.Value(), 4000) << "some replies stop early";
}

TEST_F(EngineTest, PromptTokensTakeThePrefillFormAndGeneratedOnesTheAbsorbed) {
  HarnessOptions options;
  options.engine.scheduler.prefill_tokens_max = 30;
  Harness& h = Make(options);
  h.Push(WholeOf(1, 70, 3));
  h.RunUntilIdle();
  std::vector<std::string> rows;
  for (const auto& step : h.model.steps) {
    ASSERT_EQ(step.size(), 1u);
    rows.push_back(std::string(step[0].form == AttentionForm::kPrefill ? "prefill" : "absorbed") +
                   " " + std::to_string(step[0].position) + "+" + std::to_string(step[0].tokens) +
                   (step[0].sampled ? " sampled" : ""));
  }
  EXPECT_THAT(rows, ElementsAre("prefill 0+30", "prefill 30+30", "prefill 60+10 sampled",
                                "absorbed 70+1 sampled", "absorbed 71+1 sampled"));
}

// Contract 1: not a function of batch neighbours or of chunking.
TEST_F(EngineTest, SameTokensAloneInABatchAndWithAnyChunkBudget) {
  const std::vector<SampleSpec> samplings = {{},
                                             {.temperature = 0.7f, .seed = 5},
                                             {.temperature = 1.0f, .top_k = 9, .seed = 6},
                                             {.temperature = 1.3f, .top_p = 0.5f, .seed = 7}};
  for (const std::uint32_t budget : {1u, 7u, 64u, 100u, 512u}) {
    for (const std::uint64_t neighbours : {0u, 8u}) {
      HarnessOptions options;
      options.engine.scheduler = {.sequences_max = 16, .prefill_tokens_max = budget};
      Harness& h = Make(options);
      for (std::uint64_t n = 0; n < neighbours; ++n) {
        h.Push(WholeOf(100 + n, 20 + 17 * static_cast<std::uint32_t>(n), 40));
        h.engine.RunOnce();  // they start at different steps
      }
      std::vector<StartCommand> starts;
      for (const SampleSpec& sampling : samplings) {
        StartCommand start = WholeOf(1 + starts.size(), 150, 30);
        start.sampling = sampling;
        starts.push_back(start);
        h.Push(start);
      }
      h.RunUntilIdle();
      for (const StartCommand& start : starts) {
        EXPECT_EQ(h.sink.Of(start.key).tokens,
                  h.model.Reply(start.prompt, start.sampling, 30, true))
            << "budget " << budget << ", " << neighbours << " neighbours";
      }
    }
  }
}

TEST_F(EngineTest, OneReportAStepCarriesAllSequencesOfARouter) {
  Harness& h = Make();
  for (std::uint64_t number = 1; number <= 6; ++number) {
    StartCommand start = WholeOf(number, 10, 5);
    start.link = {.value = 1 + number % 2};
    h.Push(start);
  }
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.links.size(), 10u) << "5 steps, 2 routers";
}

TEST_F(EngineTest, LogprobsPassThroughForThoseWhoAsk) {
  Harness& h = Make();
  StartCommand asks = WholeOf(1, 10, 3);
  asks.sampling.logprobs = 4;
  StartCommand asks_none = WholeOf(2, 10, 3);
  h.Push(asks);
  h.Push(asks_none);
  h.RunUntilIdle();
  for (const TokenOutput& output : h.sink.Of(asks.key).outputs) {
    EXPECT_TRUE(output.with_logprobs);
    EXPECT_FLOAT_EQ(output.token.logprob, -0.5f - static_cast<float>(output.token.token));
    EXPECT_EQ(output.token.top.size(), 4u);
  }
  for (const TokenOutput& output : h.sink.Of(asks_none.key).outputs) {
    EXPECT_FALSE(output.with_logprobs);
    EXPECT_TRUE(output.token.top.empty());
  }
}

TEST_F(EngineTest, RequestsWaitForBlocksInTheirOrder) {
  HarnessOptions options{.blocks = 4};
  Harness& h = Make(options);
  // 3 blocks, 4 blocks, 1 block: the last would fit beside the first, but comes after the second.
  h.Push(WholeOf(1, 129, 20));
  h.Push(WholeOf(2, 200, 20));
  h.Push(WholeOf(3, 10, 20));
  h.engine.RunOnce();
  EXPECT_EQ(h.engine.load().sequences_running, 1u);
  EXPECT_EQ(h.engine.load().sequences_waiting, 2u);
  EXPECT_EQ(h.engine.load().kv_blocks_used, 3u);
  EXPECT_EQ(h.engine.load().prompt_tokens_pending, 210u);
  EXPECT_EQ(h.engine.load().context_tokens_held, 129u);
  EXPECT_EQ(h.metrics.kv_blocks_used.Value(), 3);
  EXPECT_EQ(h.metrics.sequences_waiting.Value(), 2);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    while (!h.sink.Of(KeyOf(number)).ended.has_value()) ASSERT_TRUE(h.engine.RunOnce());
    EXPECT_TRUE(h.sink.Of(KeyOf(number + 1)).tokens.empty());
  }
  EXPECT_EQ(h.Outcome("finished"), 3);
}

TEST_F(EngineTest, AMixedRankStarvesNeitherPromptsNorReplies) {
  HarnessOptions options;
  options.engine.scheduler = {.sequences_max = 4, .prefill_tokens_max = 10};
  Harness& h = Make(options);
  h.Push(WholeOf(1, 10, 50));
  h.Push(WholeOf(2, 10, 50));
  h.engine.RunOnce();
  h.engine.RunOnce();
  h.Push(WholeOf(3, 400, 5));
  for (int step = 0; step < 40; ++step) {
    const std::size_t before = h.sink.Of(KeyOf(1)).tokens.size();
    h.engine.RunOnce();
    EXPECT_EQ(h.sink.Of(KeyOf(1)).tokens.size(), before + 1) << "a token in every step";
  }
  EXPECT_EQ(h.sink.Of(KeyOf(3)).tokens.size(), 1u) << "and 10 prompt tokens in every step";
  h.RunUntilIdle();
}

TEST_F(EngineTest, ACancelFreesTheBlocksWithinAStep) {
  // Steps before the cancel: waiting, in the middle of the prompt, decoding.
  for (const int steps : {0, 1, 12}) {
    for (const bool release : {false, true}) {
      HarnessOptions options;
      options.engine.scheduler.prefill_tokens_max = 30;
      Harness& h = Make(options);
      h.Push(WholeOf(1, 200, 100));
      for (int i = 0; i < steps; ++i) h.engine.RunOnce();
      EXPECT_EQ(h.pool->used(), steps == 0 ? 0u : 5u);
      if (release) {
        h.Push(ReleaseCommand{.key = KeyOf(1)});
      } else {
        h.Push(CancelCommand{.key = KeyOf(1)});
      }
      h.engine.RunOnce();
      EXPECT_EQ(h.metrics.kv_blocks_used.Value(), 0);
      const Heard& heard = h.sink.Of(KeyOf(1));
      ASSERT_TRUE(heard.ended.has_value());
      EXPECT_EQ(heard.ended->reason, EndReason::kCancelled);
      EXPECT_EQ(h.Outcome("cancelled"), 1);
      EXPECT_FALSE(h.engine.RunOnce());
    }
  }
}

TEST_F(EngineTest, WithdrawalOfTheUnknownIsNothing) {
  Harness& h = Make();
  h.Push(CancelCommand{.key = KeyOf(1)});
  h.Push(ReleaseCommand{.key = KeyOf(2)});
  h.RunUntilIdle();
  EXPECT_TRUE(h.sink.requests.empty());
}

TEST_F(EngineTest, DeadlinesEndRequestsWhereverTheyAre) {
  HarnessOptions options;
  options.engine.scheduler.sequences_max = 1;
  Harness& h = Make(options);
  StartCommand running = WholeOf(1, 10, 1000);
  running.time_left = absl::Seconds(2);
  StartCommand waiting = WholeOf(2, 10, 5);
  waiting.time_left = absl::Seconds(1);
  h.Push(running);
  h.Push(waiting);
  h.engine.RunOnce();
  EXPECT_EQ(h.engine.IdleWait(), options.engine.idle_wait_max);
  clock_.Advance(absl::Milliseconds(900));
  h.engine.RunOnce();
  EXPECT_EQ(h.engine.IdleWait(), absl::Milliseconds(100)) << "sleeps no longer than a deadline";
  clock_.Advance(absl::Milliseconds(100));
  h.engine.RunOnce();
  ExpectError(h.sink.Of(KeyOf(2)), Reason::kDeadlineExceeded, "deadline");
  EXPECT_FALSE(h.sink.Of(KeyOf(1)).ended.has_value());
  clock_.Advance(absl::Seconds(1));
  h.engine.RunOnce();
  ExpectError(h.sink.Of(KeyOf(1)), Reason::kDeadlineExceeded, "deadline");
  EXPECT_EQ(h.sink.Of(KeyOf(1)).tokens.size(), 3u) << "what was said before stays said";
  EXPECT_EQ(h.Outcome("deadline_exceeded"), 2);
}

TEST_F(EngineTest, ALostLinkEndsItsRequestsInSilence) {
  Harness& h = Make();
  StartCommand other = WholeOf(2, 10, 6);
  other.link = {.value = 2};
  h.Push(WholeOf(1, 10, 100));
  h.Push(other);
  h.engine.RunOnce();
  h.Push(WholeOf(3, 10, 100));
  h.Push(CancelCommand{.key = KeyOf(3)});  // its Ended is never said either
  h.Push(LinkLostCommand{.link = kLink});
  h.engine.RunOnce();
  EXPECT_EQ(h.engine.load().sequences_running, 1u);
  EXPECT_FALSE(h.sink.Of(KeyOf(1)).ended.has_value());
  EXPECT_FALSE(h.sink.Of(KeyOf(3)).ended.has_value());
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.Of(other.key).ended->reason, EndReason::kLength);
  EXPECT_EQ(h.Outcome("cancelled"), 2);
}

TEST_F(EngineTest, AttemptsAreFenced) {
  Harness& h = Make();
  StartCommand first = WholeOf(1, 10, 50);
  StartCommand second = first;
  second.key.attempt = 2;
  h.Push(first);
  h.engine.RunOnce();
  h.Push(second);  // replaces the first
  h.engine.RunOnce();
  EXPECT_EQ(h.sink.Of(first.key).ended->reason, EndReason::kCancelled);
  h.Push(first);                            // late: dropped without a word
  h.Push(CancelCommand{.key = first.key});  // late: does not touch the second
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.Of(second.key).tokens.size(), 50u);
  EXPECT_EQ(h.metrics.stale_frames_total.Value(), 2);
}

TEST_F(EngineTest, AnAttemptThatIsStartedTwiceEndsOnce) {
  Harness& h = Make();
  h.Push(WholeOf(1, 10, 5));
  h.engine.RunOnce();
  h.Push(WholeOf(1, 10, 5));
  h.RunUntilIdle();
  ExpectError(h.sink.Of(KeyOf(1)), Reason::kInvalidRequest, "twice");
  EXPECT_EQ(h.sink.Of(KeyOf(1)).tokens.size(), 1u);
}

TEST_F(EngineTest, DrainingFinishesWhatRunsAndRefusesWhatComes) {
  Harness& h = Make();
  h.Push(WholeOf(1, 10, 5));
  h.engine.RunOnce();
  h.Push(DrainCommand{});
  h.Push(WholeOf(2, 10, 5));
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.Of(KeyOf(1)).ended->reason, EndReason::kLength);
  ExpectError(h.sink.Of(KeyOf(2)), Reason::kDraining, "no new requests");
  EXPECT_TRUE(h.engine.load().draining);
}

TEST_F(EngineTest, AFullQueueRefuses) {
  HarnessOptions options;
  options.engine.waiting_max = 2;
  options.engine.scheduler.sequences_max = 1;
  Harness& h = Make(options);
  h.Push(WholeOf(1, 10, 5));
  h.engine.RunOnce();
  for (std::uint64_t number = 2; number <= 4; ++number) h.Push(WholeOf(number, 10, 5));
  h.engine.RunOnce();
  ExpectError(h.sink.Of(KeyOf(4)), Reason::kQueueFull, "2");
  h.RunUntilIdle();
  EXPECT_EQ(h.Outcome("finished"), 3);
  EXPECT_EQ(h.Outcome("queue_full"), 1);
}

// Requests that a cancel of the same batch had ended counted as waiting, and a Start behind them
// was refused by an empty queue.
TEST_F(EngineTest, CancelledRequestsMakeRoomInTheQueueAtOnce) {
  HarnessOptions options;
  options.engine.waiting_max = 2;
  options.engine.scheduler.sequences_max = 1;
  Harness& h = Make(options);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    h.Push(WholeOf(number, 10, 5));
    h.engine.RunOnce();
  }
  EXPECT_EQ(h.engine.load().sequences_waiting, 2u) << "the queue is full";
  h.Push(CancelCommand{.key = KeyOf(2)});
  h.Push(CancelCommand{.key = KeyOf(3)});
  for (std::uint64_t number = 4; number <= 6; ++number) h.Push(WholeOf(number, 10, 5));
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.Of(KeyOf(4)).tokens.size(), 5u);
  EXPECT_EQ(h.sink.Of(KeyOf(5)).tokens.size(), 5u);
  ExpectError(h.sink.Of(KeyOf(6)), Reason::kQueueFull, "2");
}

TEST_F(EngineTest, ARefusedRequestDisturbsNobody) {
  Harness& h = Make();
  h.Push(WholeOf(1, 10, 5));
  StartCommand bad = WholeOf(2, 10, 5);
  bad.prompt[3] = 64;
  h.Push(bad);
  h.RunUntilIdle();
  ExpectError(h.sink.Of(KeyOf(2)), Reason::kInvalidRequest, "64");
  EXPECT_EQ(h.sink.Of(KeyOf(1)).tokens.size(), 5u);
}

TEST_F(EngineTest, AFailedStepFailsItsSequencesAndNoOthers) {
  HarnessOptions options;
  options.engine.scheduler.sequences_max = 2;
  Harness& h = Make(options);
  for (std::uint64_t number = 1; number <= 3; ++number) h.Push(WholeOf(number, 10, 5));
  h.engine.RunOnce();
  h.model.FailNextStep(absl::DataLossError("a peer timed out"));
  h.RunUntilIdle();
  for (const std::uint64_t number : {1, 2}) {
    ExpectError(h.sink.Of(KeyOf(number)), Reason::kInternal, "a peer timed out");
    EXPECT_EQ(h.sink.Of(KeyOf(number)).tokens.size(), 1u) << "nothing of the failed step is used";
  }
  EXPECT_EQ(h.sink.Of(KeyOf(3)).tokens.size(), 5u);
  EXPECT_EQ(h.Outcome("internal"), 2);
}

TEST_F(EngineTest, ANumericFaultFailsItsSequenceOnly) {
  Harness& h = Make();
  h.model.FaultSeed(1);
  h.Push(WholeOf(1, 10, 5));
  h.Push(WholeOf(2, 10, 5));
  h.RunUntilIdle();
  ExpectError(h.sink.Of(KeyOf(1)), Reason::kNumericFault, "no number");
  EXPECT_EQ(h.sink.Of(KeyOf(2)).tokens.size(), 5u);
  EXPECT_EQ(h.Outcome("numeric_fault"), 1);
}

TEST_F(EngineTest, TheLastTokenThatFitsTheContextIsGenerated) {
  HarnessOptions options;
  options.model.context_tokens = 128;
  options.blocks = 2;
  Harness& h = Make(options);
  h.Push(WholeOf(1, 100, 28));
  h.Push(WholeOf(2, 100, 29));
  h.RunUntilIdle();
  EXPECT_EQ(h.sink.Of(KeyOf(1)).tokens.size(), 28u);
  ExpectError(h.sink.Of(KeyOf(2)), Reason::kPromptTooLong, "context of 128");
}

}  // namespace
}  // namespace baleen::worker
