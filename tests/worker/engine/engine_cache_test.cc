// The prefix cache as requests meet it: it changes when a reply comes, never what it says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/fake_group.h"
#include "tests/worker/engine/harness.h"
#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/kv_transfer/memory_kv_transfer.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using contract::ReasonOf;
using testing::HasSubstr;

constexpr std::uint32_t kReply = 70;

// A request for the first `prompt_tokens` of prompt `salt`, with its blocks named.
StartCommand Named(std::uint64_t number, std::uint32_t prompt_tokens, std::uint32_t salt = 1) {
  StartCommand start = WholeOf(number, prompt_tokens, kReply);
  start.prompt = PromptOf(prompt_tokens, salt);
  start.sampling.logprobs = 3;
  start.block_hashes = HashesOf(start.prompt);
  return start;
}

class EngineCache : public testing::Test {
 protected:
  void Make(HarnessOptions options = {}) { harness_ = std::make_unique<Harness>(options, clock_); }
  Harness& h() { return *harness_; }

  // Serves the request; its reply must be that of the model. Cached prompt tokens.
  std::uint32_t Serve(const StartCommand& start) {
    h().Push(start);
    h().RunUntilIdle();
    return Ended(start);
  }
  std::uint32_t Ended(const StartCommand& start) {
    const Heard& heard = h().sink.Of(start.key);
    EXPECT_EQ(heard.tokens, h().model.Reply(start.prompt, start.sampling, start.tokens_max, true));
    if (!heard.ended.has_value()) {
      ADD_FAILURE() << "request " << start.key.id.number << " has no end";
      return 0;
    }
    EXPECT_EQ(heard.ended->reason, EndReason::kLength);
    return heard.ended->cached_tokens;
  }
  // Prompt tokens computed so far.
  std::uint32_t Computed() {
    std::uint32_t tokens = 0;
    for (const auto& rows : h().model.steps) {
      for (const FakeModel::Row& row : rows) {
        tokens += row.form == AttentionForm::kPrefill ? row.tokens : 0;
      }
    }
    return tokens;
  }

  ManualClock clock_;
  std::unique_ptr<Harness> harness_;
};

TEST_F(EngineCache, APromptIsComputedFromWhereTheCacheEnds) {
  Make();
  EXPECT_EQ(Serve(Named(1, 200)), 0u);
  EXPECT_EQ(Serve(Named(2, 200)), 192u);
  EXPECT_EQ(Computed(), 200u + 8u);
  EXPECT_EQ(Serve(Named(3, 300)), 192u);
  EXPECT_EQ(Serve(Named(4, 100)), 64u);
  EXPECT_EQ(Serve(Named(5, 300, /*salt=*/2)), 0u);
  EXPECT_EQ(h().metrics.prefix_cache_queried_tokens_total.Value(), 200 + 200 + 300 + 100 + 300);
  EXPECT_EQ(h().metrics.prefix_cache_hit_tokens_total.Value(), 192 + 192 + 64);
  EXPECT_EQ(h().metrics.prompt_tokens_total.Value(), Computed());
}

// The logits of a prompt's last token are needed, whatever is cached.
TEST_F(EngineCache, AtLeastTheLastTokenIsComputed) {
  Make();
  EXPECT_EQ(Serve(Named(1, 128)), 0u);
  EXPECT_EQ(Serve(Named(2, 128)), 64u);
  EXPECT_EQ(Serve(Named(3, 129)), 128u);
  EXPECT_EQ(Serve(Named(4, 64)), 0u);
  EXPECT_EQ(Serve(Named(5, 65)), 64u);
}

// Those use another form of attention.
TEST_F(EngineCache, ReplyTokensAreNeverCached) {
  Make();
  const StartCommand first = Named(1, 100);
  EXPECT_EQ(Serve(first), 0u);
  StartCommand next = Named(2, 100);
  const std::vector<std::int32_t>& reply = h().sink.Of(first.key).tokens;
  next.prompt.insert(next.prompt.end(), reply.begin(), reply.end());
  next.block_hashes = HashesOf(next.prompt);
  EXPECT_EQ(Serve(next), 64u);
}

TEST_F(EngineCache, CachedBlocksCountAsFree) {
  Make({.blocks = 8});
  Serve(Named(1, 300));
  h().engine.RunOnce();
  EXPECT_EQ(h().engine.load().kv_blocks_used, 0u);
  EXPECT_EQ(h().engine.load().kv_blocks_cached, 4u);
  EXPECT_EQ(h().metrics.kv_blocks_cached.Value(), 4);
  // Needs seven of eight: the cache makes room, from its end.
  EXPECT_EQ(Serve(Named(2, 350, /*salt=*/2)), 0u);
  EXPECT_EQ(h().metrics.prefix_cache_evicted_blocks_total.Value(), 3);
  EXPECT_EQ(Serve(Named(3, 300)), 64u);
}

TEST_F(EngineCache, WhatIsSharedIsNotReservedTwice) {
  Make({.blocks = 9});  // one request needs 6: 5 for its prompt and 1 more for its reply
  const StartCommand first = Named(1, 300);
  const StartCommand second = Named(2, 300);
  h().Push(first);
  for (int i = 0; i < 3; ++i) h().engine.RunOnce();
  h().Push(second);
  h().engine.RunOnce();
  EXPECT_EQ(h().engine.load().sequences_running, 2u);
  EXPECT_EQ(h().engine.load().kv_blocks_used, 8u);
  h().RunUntilIdle();
  EXPECT_EQ(Ended(first), 0u);
  EXPECT_EQ(Ended(second), 256u);
}

// Those that come together would all miss at admission: whoever is behind takes what the one in
// front has computed meanwhile.
TEST_F(EngineCache, OfPromptsThatComeTogetherOneIsComputed) {
  HarnessOptions options{.blocks = 200};
  options.engine.scheduler.prefill_tokens_max = 256;
  Make(options);
  std::vector<StartCommand> starts;
  for (std::uint64_t number = 1; number <= 10; ++number) {
    starts.push_back(Named(number, 1000 + static_cast<std::uint32_t>(number)));
    h().Push(starts.back());
  }
  h().RunUntilIdle();
  for (const StartCommand& start : starts) Ended(start);
  EXPECT_LT(Computed(), 2000u);
  EXPECT_EQ(h().metrics.prefix_cache_hit_tokens_total.Value() + Computed(), 10 * 1000 + 55);
}

TEST_F(EngineCache, PromptLogprobsComputeAllAndFillTheCache) {
  Make();
  Serve(Named(1, 200));
  StartCommand scored = Named(2, 300);
  scored.prompt_logprobs = 0;
  EXPECT_EQ(Serve(scored), 0u);
  EXPECT_EQ(Computed(), 500u);
  EXPECT_EQ(Serve(Named(3, 300)), 256u);
}

TEST_F(EngineCache, WithoutNamesOrSwitchedOffNothingIsKept) {
  Make();
  StartCommand unnamed = Named(1, 200);
  unnamed.block_hashes.clear();
  Serve(unnamed);
  EXPECT_EQ(Serve(Named(2, 200)), 0u);
  HarnessOptions off;
  off.engine.prefix_cache = false;
  Make(off);
  Serve(Named(1, 200));
  EXPECT_EQ(Serve(Named(2, 200)), 0u);
  EXPECT_EQ(h().engine.load().kv_blocks_cached, 0u);
}

TEST_F(EngineCache, ACancelledPromptLeavesItsWholeBlocksOnly) {
  HarnessOptions options;
  options.engine.scheduler.prefill_tokens_max = 100;
  Make(options);
  const StartCommand cancelled = Named(1, 300);
  h().Push(cancelled);
  h().engine.RunOnce();
  h().engine.RunOnce();  // 200 tokens
  h().Push(CancelCommand{.key = cancelled.key});
  h().engine.RunOnce();
  EXPECT_EQ(h().engine.load().kv_blocks_used, 0u);
  EXPECT_EQ(h().engine.load().kv_blocks_cached, 3u);
  EXPECT_EQ(Serve(Named(2, 300)), 192u);
}

TEST_F(EngineCache, AFailedStepLeavesNothing) {
  HarnessOptions options;
  options.engine.scheduler.prefill_tokens_max = 128;
  Make(options);
  const StartCommand failed = Named(1, 300);
  h().Push(failed);
  h().engine.RunOnce();
  h().model.FailNextStep(absl::InternalError("a device fault"));
  h().RunUntilIdle();
  EXPECT_EQ(h().sink.Of(failed.key).ended->reason, EndReason::kError);
  EXPECT_EQ(Serve(Named(2, 300)), 128u);
}

// Where the numbers of a sequence went wrong nobody knows: in its KV perhaps.
TEST_F(EngineCache, ANumericFaultTakesItsBlocksOutOfTheCache) {
  Make();
  EXPECT_EQ(Serve(Named(1, 200)), 0u);
  EXPECT_EQ(Serve(Named(2, 200, /*salt=*/2)), 0u);
  const StartCommand faulty = Named(3, 300);
  h().model.FaultSeed(faulty.sampling.seed);
  h().Push(faulty);
  h().RunUntilIdle();
  EXPECT_EQ(ReasonOf(h().sink.Of(faulty.key).ended->status), Reason::kNumericFault);
  EXPECT_EQ(Serve(Named(4, 200)), 0u);
  EXPECT_EQ(Serve(Named(5, 200, /*salt=*/2)), 192u);
}

TEST_F(EngineCache, AWrongNumberOfHashesIsRefused) {
  Make();
  StartCommand start = Named(1, 200);
  start.block_hashes.pop_back();
  h().Push(start);
  h().RunUntilIdle();
  const absl::Status status = h().sink.Of(start.key).ended->status;
  EXPECT_EQ(ReasonOf(status), Reason::kInvalidRequest);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2 block hashes for the 3 whole blocks"));
}

// A router that names blocks wrongly gets wrong replies, but ends nobody else's.
TEST_F(EngineCache, HashesThatContradictThemselvesDoNotStopTheRank) {
  Make({.blocks = 12});
  Serve(Named(1, 200));
  const StartCommand running = Named(2, 200);
  h().Push(running);
  h().engine.RunOnce();
  Serve(Named(3, 200, /*salt=*/2));
  for (std::uint64_t number = 10; number < 14; ++number) {
    StartCommand lying = Named(number, 260);
    const auto other = HashesOf(PromptOf(260, 2));
    lying.block_hashes = {lying.block_hashes[0], lying.block_hashes[0], other[2], other[2]};
    std::rotate(lying.block_hashes.begin(),
                lying.block_hashes.begin() + static_cast<int>(number % 4),
                lying.block_hashes.end());
    h().Push(lying);
  }
  h().RunUntilIdle();
  Ended(running);
  for (std::uint64_t number = 10; number < 14; ++number) {
    EXPECT_TRUE(h().sink.Of(KeyOf(number)).ended.has_value());
  }
  EXPECT_EQ(h().pool->used(), 0u);
}

// A block whose name was taken wrongly could be kept later, when the name was free again: another
// sequence's took its place then, while it was perhaps on its way to a decode rank.
TEST_F(EngineCache, WhatCouldNotBeKeptAtOnceIsNotKeptLater) {
  HarnessOptions options;
  options.engine.scheduler.prefill_tokens_max = 200;
  Make(options);
  const StartCommand holder = Named(1, 130, /*salt=*/2);
  h().Push(holder);
  h().engine.RunOnce();
  StartCommand lying = Named(2, 300);
  lying.block_hashes[0] = holder.block_hashes[1];
  h().Push(lying);
  h().engine.RunOnce();
  EXPECT_EQ(h().pool->Find(lying.block_hashes).cached, 0u);
  h().model.FaultSeed(holder.sampling.seed);  // which takes the name out of the cache
  h().RunUntilIdle();
  EXPECT_EQ(h().pool->Find(lying.block_hashes).cached, 0u);
  Ended(lying);
}

TEST_F(EngineCache, WhatWaitsIsPendingLessWhatTheCacheHas) {
  HarnessOptions options;
  options.engine.scheduler.sequences_max = 1;
  Make(options);
  Serve(Named(1, 200));
  h().Push(Named(2, 300));
  h().Push(Named(3, 200));
  h().engine.RunOnce();
  EXPECT_EQ(h().engine.load().prompt_tokens_pending, 8u);
  h().RunUntilIdle();
}

TEST_F(EngineCache, TheLoadSaysHowFastPromptsAreComputed) {
  Make();
  h().model.on_step = [this] { clock_.Advance(absl::Milliseconds(100)); };
  EXPECT_EQ(h().engine.load().prompt_tokens_per_second, 0.0f);
  StartCommand start = Named(1, 200);
  start.tokens_max = 5;  // steps without prompt tokens say nothing
  Serve(start);
  h().engine.RunOnce();
  EXPECT_FLOAT_EQ(h().engine.load().prompt_tokens_per_second, 2000.0f);
}

TEST_F(EngineCache, RoutersCanFollowWhatIsCached) {
  Make({.blocks = 8});
  CacheFeed::Place place;
  std::set<contract::BlockHash> known;
  const auto follow = [&] {
    while (const std::optional<CacheChanges> changes = h().feed.Read(place)) {
      if (changes->cleared) known.clear();
      known.insert(changes->stored.begin(), changes->stored.end());
      for (const contract::BlockHash& hash : changes->evicted) known.erase(hash);
    }
    return known;
  };
  const auto hashes = HashesOf(PromptOf(300, 1));
  EXPECT_TRUE(follow().empty());
  Serve(Named(1, 300));
  EXPECT_EQ(follow(), std::set(hashes.begin(), hashes.end()));
  Serve(Named(2, 350, /*salt=*/2));
  EXPECT_TRUE(follow().contains(hashes[0]));
  EXPECT_FALSE(follow().contains(hashes[1]));
  EXPECT_EQ(follow().size(), 1u + 5u);
}

// Over two ranks: the prefill rank has some of the prompt, and sends all of it.
TEST(SplitCache, CachedBlocksAreSentAsComputedOnesAre) {
  ManualClock clock;
  MemoryKvHub hub(clock);
  const TransferLimits limits{.block_bytes = 64 * sizeof(std::uint64_t)};
  const auto prefill_plane = hub.Attach(limits);
  const auto decode_plane = hub.Attach(limits);
  HarnessOptions options;
  options.engine.scheduler.prefill_tokens_max = 100;
  options.engine.role = Role::kPrefill;
  Harness prefill(options, clock, prefill_plane.get());
  options.engine.role = Role::kDecode;
  Harness decode(options, clock, decode_plane.get());
  std::uint64_t number = 0;
  for (const std::uint32_t prompt : {300u, 300u, 320u, 65u, 64u, 500u, 500u}) {
    StartCommand start = Named(++number, prompt);
    start.leg = Leg::kPrefill;
    start.transfer = {.value = number};
    start.peer_address = decode_plane->LocalAddress();
    prefill.Push(start);
    StartCommand rest = start;
    rest.leg = Leg::kDecode;
    rest.peer_address.clear();
    decode.Push(rest);
    for (int i = 0; i < 150; ++i) {
      prefill.engine.RunOnce();
      decode.engine.RunOnce();
    }
    std::vector<std::int32_t> tokens = prefill.sink.Of(start.key).tokens;
    const Heard& heard = decode.sink.Of(start.key);
    tokens.insert(tokens.end(), heard.tokens.begin(), heard.tokens.end());
    EXPECT_EQ(tokens, prefill.model.Reply(start.prompt, start.sampling, kReply, true)) << number;
    ASSERT_TRUE(prefill.sink.Of(start.key).ended.has_value());
    EXPECT_EQ(prefill.sink.Of(start.key).ended->reason, EndReason::kHandedOver);
    EXPECT_EQ(prefill.sink.Of(start.key).ended->kv_transfer_bytes,
              (prompt + 63) / 64 * limits.block_bytes);
    EXPECT_EQ(prefill.pool->used() + decode.pool->used(), 0u);
  }
  EXPECT_EQ(prefill.sink.Of(KeyOf(2)).ended->cached_tokens, 256u);
  EXPECT_EQ(prefill.sink.Of(KeyOf(7)).ended->cached_tokens, 448u);
  EXPECT_EQ(decode.engine.load().kv_blocks_cached, 0u);
}

// Two ranks in lockstep, each with a cache of its own.
TEST(GroupCache, ABrokenEpochLeavesWhatWasCompleteBefore) {
  const AllToAllShape shape{.ranks = 1,
                            .slots_per_rank = 1,
                            .slots_per_row = 1,
                            .row_bytes = 2,
                            .output_bytes = 2,
                            .rows_max = 1024,
                            .wait_max = absl::Seconds(30)};
  const auto first = LoopbackGroup::Make(shape).value();
  const auto second = LoopbackGroup::Make(shape).value();
  ManualClock clock;
  FakeModel model({.limits = StepLimitsFor({.prefill_tokens_max = 128})});
  metrics::Registry registry;
  const metrics::WorkerMetrics metrics(registry, {.version = "0", .component = "worker"});
  const auto pool = *BlockPool::Create({.blocks = 64, .block_bytes = 64 * sizeof(std::uint64_t)});
  Inbox inbox{InboxLimits{}};
  FakeGroup group(inbox);
  RecordingSink sink;
  Engine engine({.scheduler = {.prefill_tokens_max = 128}}, {.clock = clock,
                                                             .model = model,
                                                             .blocks = *pool,
                                                             .group = &group,
                                                             .inbox = inbox,
                                                             .sink = sink,
                                                             .metrics = metrics});
  group.Form(1, first->Join(0));
  engine.RunOnce();
  ASSERT_TRUE(inbox.Push(Named(1, 300)).ok());
  engine.RunOnce();
  model.FailNextStep(absl::UnavailableError("a peer is gone"));
  engine.RunOnce();
  EXPECT_EQ(ReasonOf(sink.Of(KeyOf(1)).ended->status), Reason::kWorkerLost);
  group.Form(2, second->Join(0));
  engine.RunOnce();
  const StartCommand again = Named(2, 300);
  ASSERT_TRUE(inbox.Push(again).ok());
  for (int i = 0; i < 100 && !sink.Of(again.key).ended.has_value(); ++i) engine.RunOnce();
  EXPECT_EQ(sink.Of(again.key).tokens, model.Reply(again.prompt, again.sampling, kReply, true));
  EXPECT_EQ(sink.Of(again.key).ended->cached_tokens, 128u);
}

}  // namespace
}  // namespace baleen::worker
