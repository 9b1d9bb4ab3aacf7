// A request over two ranks: the prompt here, the reply there, and everything that can go wrong in
// between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/fake_grammars.h"
#include "tests/worker/engine/harness.h"
#include "worker/kv_transfer/memory_kv_transfer.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using contract::ReasonOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr LinkId kOtherLink{.value = 2};

TransferLimits LimitsFor(std::uint32_t transfers_max = 256) {
  return {.transfers_max = transfers_max, .block_bytes = 64 * sizeof(std::uint64_t)};
}

struct PairOptions {
  std::uint32_t prefill_tokens_max = 512;
  std::uint32_t decode_transfers_max = 256;
  Grammars* prefill_grammars = nullptr;
  Grammars* decode_grammars = nullptr;
};

// A prefill rank and a decode rank, joined in memory.
class Pair {
 public:
  explicit Pair(const PairOptions& options = {})
      : prefill_plane(hub.Attach(LimitsFor())),
        decode_plane(hub.Attach(LimitsFor(options.decode_transfers_max))),
        prefill(OptionsOf(Role::kPrefill, options), clock, prefill_plane.get()),
        decode(OptionsOf(Role::kDecode, options), clock, decode_plane.get()) {}

  static HarnessOptions OptionsOf(Role role, const PairOptions& options) {
    HarnessOptions harness;
    harness.engine.role = role;
    harness.grammars = role == Role::kPrefill ? options.prefill_grammars : options.decode_grammars;
    harness.engine.scheduler.prefill_tokens_max = options.prefill_tokens_max;
    return harness;
  }

  StartCommand PrefillLeg(std::uint64_t number, std::uint32_t prompt, std::uint32_t tokens_max) {
    StartCommand start = WholeOf(number, prompt, tokens_max);
    start.leg = Leg::kPrefill;
    start.transfer = {.value = 1000 + number};
    start.peer_address = decode_plane->LocalAddress();
    return start;
  }

  static StartCommand DecodeLeg(StartCommand start) {
    start.leg = Leg::kDecode;
    start.link = kOtherLink;
    start.peer_address.clear();
    return start;
  }

  // Enough rounds for everything to have happened that needs no time.
  void Pump(int rounds = 100) {
    for (int i = 0; i < rounds; ++i) {
      prefill.engine.RunOnce();
      decode.engine.RunOnce();
    }
  }

  void ExpectAllBack() {
    EXPECT_EQ(prefill.pool->used(), 0u);
    EXPECT_EQ(decode.pool->used(), 0u);
  }

  ManualClock clock;
  MemoryKvHub hub{clock};
  std::unique_ptr<KvTransfer> prefill_plane;
  std::unique_ptr<KvTransfer> decode_plane;
  Harness prefill;
  Harness decode;
};

void ExpectFailed(const Heard& heard, Reason reason) {
  ASSERT_TRUE(heard.ended.has_value());
  EXPECT_EQ(ReasonOf(heard.ended->status), reason) << heard.ended->status;
}

// The decode rank goes on with the prompt and the first token that it was told.
TEST(Handover, EveryRuleGivesTheReplyOfOneRank) {
  FakeGrammars prefill_grammars(64);
  FakeGrammars decode_grammars(64);
  Pair pair({.prefill_tokens_max = 50,
             .prefill_grammars = &prefill_grammars,
             .decode_grammars = &decode_grammars});
  int stopped_first = 0;
  for (std::uint64_t number = 1; number <= 60; ++number) {
    StartCommand start = pair.PrefillLeg(number, 100, 40);
    start.sampling.repetition_penalty = 1.5f;
    start.sampling.frequency_penalty = 0.5f;
    start.sampling.presence_penalty = number % 2 == 0 ? 1.0f : 0.0f;
    start.sampling.biases = {{2, 1.0f}};
    start.stop_token_ids = {3, 4, 5, 6, 7, 10, 13, 16, 19};
    start.tokens_min = number % 3 * 5;
    const std::optional<std::int32_t> after =
        number % 4 == 0 ? std::optional<std::int32_t>(20) : std::nullopt;
    start.grammar = {.source = {text::GrammarKind::kRegex, "x"}, .after_token = after};
    StartCommand decode = Pair::DecodeLeg(start);
    start.prompt_logprobs = 2;
    pair.decode.Push(decode);
    pair.prefill.Push(start);
    pair.Pump(100);
    const auto reply = pair.prefill.model.Reply(
        start, [after](std::span<const std::int32_t> so_far, std::int32_t token) {
          return FakeGrammars::AllowsAfter(after, so_far, token);
        });
    const Heard& first = pair.prefill.sink.Of(start.key);
    const Heard& rest = pair.decode.sink.Of(start.key);
    EXPECT_EQ(first.prompt_logprobs, pair.prefill.model.PromptLogprobs(start.prompt, 2));
    EXPECT_THAT(rest.prompt_logprobs, IsEmpty());
    std::vector<std::int32_t> both = first.tokens;
    both.insert(both.end(), rest.tokens.begin(), rest.tokens.end());
    EXPECT_EQ(both, reply) << number;
    ASSERT_TRUE(first.ended.has_value());
    if (first.ended->reason == EndReason::kStop) {
      ++stopped_first;
      pair.decode.Push(ReleaseCommand{.key = start.key});
      pair.Pump(5);
    } else {
      EXPECT_EQ(first.ended->reason, EndReason::kHandedOver);
      const bool stopped = std::ranges::count(start.stop_token_ids, reply.back()) > 0;
      EXPECT_EQ(rest.ended->reason, stopped ? EndReason::kStop : EndReason::kLength);
    }
  }
  EXPECT_GT(stopped_first, 0) << "a stop token as the first one";
  pair.ExpectAllBack();
}

TEST(Handover, TheReplyIsTheSameAsOnOneRank) {
  for (const std::uint32_t budget : {50u, 64u, 512u}) {
    for (const std::uint32_t prompt : {1u, 63u, 64u, 65u, 128u, 200u}) {
      Pair pair({.prefill_tokens_max = budget});
      const StartCommand start = pair.PrefillLeg(1, prompt, 80);
      pair.decode.Push(Pair::DecodeLeg(start));
      pair.prefill.Push(start);
      pair.Pump(150);
      const auto reply = pair.prefill.model.Reply(start.prompt, start.sampling, 80, true);
      const Heard& first = pair.prefill.sink.Of(start.key);
      const Heard& rest = pair.decode.sink.Of(start.key);
      EXPECT_THAT(first.tokens, ElementsAre(reply[0]));
      EXPECT_EQ(rest.tokens, std::vector(reply.begin() + 1, reply.end()))
          << "prompt " << prompt << ", budget " << budget;
      EXPECT_EQ(rest.sequences.front(), 1u);
      ASSERT_TRUE(first.ended.has_value() && rest.ended.has_value());
      EXPECT_EQ(first.ended->reason, EndReason::kHandedOver);
      EXPECT_EQ(rest.ended->reason, EndReason::kLength);
      const std::uint64_t bytes = (prompt + 63) / 64 * 64 * sizeof(std::uint64_t);
      EXPECT_EQ(first.ended->kv_transfer_bytes, bytes);
      EXPECT_EQ(rest.ended->kv_transfer_bytes, bytes);
      EXPECT_EQ(pair.prefill.metrics.kv_transfer_sent_bytes_total.Value(), bytes);
      EXPECT_EQ(pair.decode.metrics.kv_transfer_received_bytes_total.Value(), bytes);
      pair.ExpectAllBack();
    }
  }
}

TEST(Handover, KvThatIsReadyBeforeItsReservationWaits) {
  Pair pair;
  const StartCommand start = pair.PrefillLeg(1, 100, 10);
  pair.prefill.Push(start);
  pair.Pump();
  EXPECT_EQ(pair.prefill.sink.Of(start.key).tokens.size(), 1u) << "the first token does not wait";
  EXPECT_FALSE(pair.prefill.sink.Of(start.key).ended.has_value());
  EXPECT_EQ(pair.prefill.pool->used(), 2u) << "kept until the decode rank has verified it";
  pair.decode.Push(Pair::DecodeLeg(start));
  pair.Pump();
  EXPECT_EQ(pair.decode.sink.Of(start.key).tokens.size(), 9u);
  pair.ExpectAllBack();
}

TEST(Handover, AReplyOfOneTokenNeverCrosses) {
  Pair pair({.prefill_tokens_max = 64});  // so that a transfer is under way when the reply ends
  const StartCommand start = pair.PrefillLeg(1, 100, 1);
  pair.decode.Push(Pair::DecodeLeg(start));
  pair.prefill.Push(start);
  pair.Pump();
  EXPECT_EQ(pair.prefill.sink.Of(start.key).ended->reason, EndReason::kLength);
  EXPECT_EQ(pair.prefill.metrics.kv_transfer_failures_total.Value(), 0) << "given up, not failed";
  // The decode rank reported, and counted, a failed transfer that nobody needed.
  ASSERT_TRUE(pair.decode.sink.Of(start.key).ended.has_value());
  EXPECT_EQ(pair.decode.sink.Of(start.key).ended->reason, EndReason::kCancelled);
  EXPECT_EQ(pair.decode.metrics.kv_transfer_failures_total.Value(), 0);
  EXPECT_EQ(pair.decode.Outcome("transfer_failed"), 0);
  pair.decode.Push(ReleaseCommand{.key = start.key});  // the router's, on its way meanwhile
  pair.Pump();
  pair.ExpectAllBack();
}

TEST(Handover, AReplyThatStopsAtItsFirstTokenNeverCrosses) {
  Pair pair;
  StartCommand start = pair.PrefillLeg(1, 10, 20);
  start.ignore_eos = false;
  while (pair.prefill.model.Reply(start.prompt, start.sampling, 1)[0] != 1) ++start.sampling.seed;
  pair.prefill.Push(start);
  pair.Pump();
  EXPECT_EQ(pair.prefill.sink.Of(start.key).ended->reason, EndReason::kStop);
  EXPECT_THAT(pair.prefill.sink.Of(start.key).tokens, ElementsAre(1));
  pair.ExpectAllBack();
}

TEST(Handover, DamagedKvFailsOnBothSides) {
  Pair pair;
  pair.hub.CorruptBlocks(1);
  const StartCommand start = pair.PrefillLeg(1, 200, 10);
  pair.decode.Push(Pair::DecodeLeg(start));
  pair.prefill.Push(start);
  pair.Pump();
  ExpectFailed(pair.prefill.sink.Of(start.key), Reason::kTransferFailed);
  ExpectFailed(pair.decode.sink.Of(start.key), Reason::kTransferFailed);
  EXPECT_THAT(pair.decode.sink.Of(start.key).tokens, IsEmpty());
  EXPECT_EQ(pair.decode.metrics.kv_transfer_failures_total.Value(), 1);
  EXPECT_EQ(pair.decode.Outcome("transfer_failed"), 1);
  pair.ExpectAllBack();
}

TEST(Handover, KvOfAnotherPromptIsNotContinued) {
  Pair pair;
  const StartCommand start = pair.PrefillLeg(1, 100, 10);
  StartCommand mixed_up = Pair::DecodeLeg(start);
  mixed_up.prompt[50] ^= 1;
  pair.decode.Push(mixed_up);
  pair.prefill.Push(start);
  pair.Pump();
  const Heard& heard = pair.decode.sink.Of(start.key);
  ExpectFailed(heard, Reason::kTransferFailed);
  EXPECT_THAT(heard.ended->status.ToString(), HasSubstr("another prompt"));
  pair.ExpectAllBack();
}

TEST(Handover, ACancelHereEndsTheReservationThere) {
  Pair pair({.prefill_tokens_max = 64});
  const StartCommand start = pair.PrefillLeg(1, 500, 10);
  pair.decode.Push(Pair::DecodeLeg(start));
  pair.prefill.Push(start);
  pair.Pump(3);
  pair.prefill.Push(CancelCommand{.key = start.key});
  pair.Pump();
  EXPECT_EQ(pair.prefill.sink.Of(start.key).ended->reason, EndReason::kCancelled);
  ASSERT_TRUE(pair.decode.sink.Of(start.key).ended.has_value());
  EXPECT_EQ(pair.decode.sink.Of(start.key).ended->reason, EndReason::kCancelled);
  pair.ExpectAllBack();
}

TEST(Handover, ADecodeRankThatDiesFailsTheTransfer) {
  Pair pair;
  const StartCommand start = pair.PrefillLeg(1, 100, 10);
  pair.prefill.Push(start);
  pair.Pump(2);
  pair.hub.DropPeer(pair.decode_plane->LocalAddress());
  pair.Pump();
  ExpectFailed(pair.prefill.sink.Of(start.key), Reason::kTransferFailed);
  pair.ExpectAllBack();
}

TEST(Handover, AReservationThatIsNeverFilledEndsWithItsLease) {
  Pair pair;
  const StartCommand start = pair.PrefillLeg(1, 100, 10);
  pair.decode.Push(Pair::DecodeLeg(start));
  pair.Pump();
  EXPECT_EQ(pair.decode.engine.load().sequences_waiting, 1u);
  EXPECT_EQ(pair.decode.engine.load().prompt_tokens_pending, 0u);
  EXPECT_EQ(pair.decode.engine.load().kv_blocks_used, 2u);
  EXPECT_EQ(pair.decode.engine.IdleWait(), EngineOptions{}.transfer_poll);
  pair.clock.Advance(absl::Seconds(31));
  pair.Pump();
  ExpectFailed(pair.decode.sink.Of(start.key), Reason::kTransferFailed);
  pair.ExpectAllBack();
}

TEST(Handover, AFullDataPlaneRefusesInsteadOfFailing) {
  Pair pair({.decode_transfers_max = 1});
  for (std::uint64_t number = 1; number <= 2; ++number) {
    pair.decode.Push(Pair::DecodeLeg(pair.PrefillLeg(number, 100, 10)));
  }
  pair.Pump();
  ExpectFailed(pair.decode.sink.Of(KeyOf(2)), Reason::kQueueFull);
  pair.decode.Push(ReleaseCommand{.key = KeyOf(1)});
  pair.Pump();
  pair.ExpectAllBack();
}

// A data plane whose every move the test makes.
class ScriptedTransfer final : public KvTransfer {
 public:
  std::string LocalAddress() const override { return "here"; }
  absl::Status Expect(contract::TransferId id, std::vector<std::span<std::byte>> blocks) override {
    expected.push_back({id.value, blocks.size()});
    return answer;
  }
  absl::Status Send(SendPart part) override {
    sent.push_back(part.last ? "close " + std::to_string(part.blocks_total)
                             : "block " + std::to_string(part.block_number));
    return answer;
  }
  void Cancel(contract::TransferId id) override { cancelled.insert(id.value); }
  std::vector<TransferEvent> Poll() override { return std::exchange(events, {}); }

  std::vector<std::pair<std::uint64_t, std::size_t>> expected;  // id, blocks
  std::vector<std::string> sent;
  std::set<std::uint64_t> cancelled;
  std::vector<TransferEvent> events;
  absl::Status answer;
};

class ScriptedTest : public testing::Test {
 protected:
  static HarnessOptions Options() {
    HarnessOptions options{.blocks = 6};
    options.engine.scheduler.prefill_tokens_max = 100;
    return options;
  }

  static StartCommand Leg(worker::Leg leg, std::uint64_t number, std::uint32_t prompt) {
    StartCommand start = WholeOf(number, prompt, 10);
    start.leg = leg;
    start.transfer = {.value = number};
    start.peer_address = "there";
    return start;
  }

  ManualClock clock_;
  ScriptedTransfer plane_;
  Harness h_{Options(), clock_, &plane_};
};

TEST_F(ScriptedTest, BlocksGoAsSoonAsTheirChunkIsDone) {
  h_.Push(Leg(Leg::kPrefill, 1, 300));
  h_.engine.RunOnce();
  EXPECT_THAT(plane_.sent, ElementsAre("block 0"));
  h_.engine.RunOnce();
  EXPECT_THAT(plane_.sent, ElementsAre("block 0", "block 1", "block 2"));
  EXPECT_THAT(h_.sink.requests, IsEmpty());
  h_.engine.RunOnce();
  EXPECT_THAT(plane_.sent,
              ElementsAre("block 0", "block 1", "block 2", "block 3", "block 4", "close 5"));
  EXPECT_EQ(h_.sink.Of(KeyOf(1)).tokens.size(), 1u);
  EXPECT_EQ(h_.pool->used(), 5u);
  plane_.events.push_back({.id = {.value = 1}, .kind = TransferEventKind::kHandedOver, .bytes = 9});
  h_.engine.RunOnce();
  EXPECT_EQ(h_.sink.Of(KeyOf(1)).ended->reason, EndReason::kHandedOver);
  EXPECT_EQ(h_.pool->used(), 0u);
}

TEST_F(ScriptedTest, OnlyThePromptIsExpected) {
  h_.Push(Leg(Leg::kDecode, 1, 128));  // and 10 more tokens: 3 blocks
  h_.engine.RunOnce();
  EXPECT_THAT(plane_.expected, ElementsAre(std::pair<std::uint64_t, std::size_t>(1, 2)));
  EXPECT_EQ(h_.pool->used(), 3u);
  plane_.events.push_back({.id = {.value = 1},
                           .kind = TransferEventKind::kFailed,
                           .status = absl::UnavailableError("gone")});
  h_.engine.RunOnce();
  EXPECT_EQ(h_.pool->used(), 0u);
}

TEST_F(ScriptedTest, MemoryOfAnOpenTransferIsKeptUntilItsFinalEvent) {
  for (const worker::Leg leg : {Leg::kPrefill, Leg::kDecode}) {
    const std::uint64_t number = leg == Leg::kPrefill ? 1 : 2;
    h_.Push(Leg(leg, number, 300));
    h_.engine.RunOnce();
    h_.Push(CancelCommand{.key = KeyOf(number)});
    h_.engine.RunOnce();
    EXPECT_EQ(h_.sink.Of(KeyOf(number)).ended->reason, EndReason::kCancelled);
    EXPECT_TRUE(plane_.cancelled.contains(number));
    EXPECT_EQ(h_.pool->used(), 5u);
    h_.Push(WholeOf(10 + number, 100, 1));  // wants 2 blocks, and there is 1
    h_.engine.RunOnce();
    EXPECT_EQ(h_.engine.load().sequences_waiting, 1u);
    plane_.events.push_back({.id = {.value = number},
                             .kind = TransferEventKind::kFailed,
                             .status = absl::CancelledError("given up")});
    h_.RunUntilIdle();
    EXPECT_EQ(h_.sink.Of(KeyOf(10 + number)).tokens.size(), 1u);
    EXPECT_EQ(h_.pool->used(), 0u);
  }
  EXPECT_EQ(h_.metrics.kv_transfer_failures_total.Value(), 0);
}

TEST_F(ScriptedTest, ATransferThatCannotBeginLeavesNothingBehind) {
  plane_.answer = absl::ResourceExhaustedError("256 transfers, the limit");
  h_.Push(Leg(Leg::kPrefill, 1, 10));
  h_.Push(Leg(Leg::kDecode, 2, 10));
  h_.RunUntilIdle();
  for (const std::uint64_t number : {1, 2}) {
    ExpectFailed(h_.sink.Of(KeyOf(number)), Reason::kQueueFull);
  }
  EXPECT_EQ(h_.sink.Of(KeyOf(1)).tokens.size(), 1u);
  EXPECT_THAT(plane_.sent, ElementsAre("block 0")) << "and no closing part";
  EXPECT_THAT(plane_.cancelled, IsEmpty());
  EXPECT_EQ(h_.pool->used(), 0u);
}

TEST_F(ScriptedTest, ATransferIdIsUsedOnce) {
  StartCommand second = Leg(Leg::kDecode, 2, 10);
  second.transfer = {.value = 1};
  h_.Push(Leg(Leg::kDecode, 1, 10));
  h_.Push(second);
  h_.engine.RunOnce();
  ExpectFailed(h_.sink.Of(KeyOf(2)), Reason::kTransferFailed);
  EXPECT_EQ(h_.engine.load().sequences_waiting, 1u) << "the first still waits for its KV";
  plane_.events.push_back({.id = {.value = 1}, .status = absl::UnavailableError("gone")});
  plane_.events.push_back({.id = {.value = 77}, .status = absl::UnavailableError("whose?")});
  h_.engine.RunOnce();
  EXPECT_EQ(h_.pool->used(), 0u);
}

TEST_F(ScriptedTest, AManifestThatIsNoneIsRefused) {
  h_.Push(Leg(Leg::kDecode, 1, 10));
  h_.engine.RunOnce();
  plane_.events.push_back(
      {.id = {.value = 1}, .kind = TransferEventKind::kReceived, .manifest = "garbage"});
  h_.engine.RunOnce();
  ExpectFailed(h_.sink.Of(KeyOf(1)), Reason::kTransferFailed);
  EXPECT_EQ(h_.pool->used(), 0u);
}

}  // namespace
}  // namespace baleen::worker
