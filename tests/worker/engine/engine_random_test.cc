// Two engines, one clock, one seed: requests start, are cancelled, released, re-planned, expire,
// lose their link, their KV or their step, in any order. Whatever happens: each Start ends exactly
// once, tokens are the model's and without gaps, and all blocks come back.
//
// Replay: --gtest_shuffle --gtest_random_seed=<the base seed that a failure prints>.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/engine/harness.h"
#include "worker/kv_transfer/memory_kv_transfer.h"

namespace baleen::worker {
namespace {

constexpr int kRanks = 2;

// A rank that takes all legs, and what a router told it.
struct Rank {
  Rank(const HarnessOptions& options, ManualClock& clock, std::unique_ptr<KvTransfer> data_plane)
      : plane(std::move(data_plane)), harness(options, clock, plane.get()) {}

  std::unique_ptr<KvTransfer> plane;
  Harness harness;
  LinkId link{.value = 1};
  std::map<contract::RequestKey, StartCommand> started;
};

class World {
 public:
  explicit World(std::uint32_t seed) : random_(seed) {
    HarnessOptions options{.blocks = 10 + Pick(40)};
    options.engine.scheduler = {.sequences_max = 1 + Pick(8), .prefill_tokens_max = 1 + Pick(150)};
    options.engine.waiting_max = 1 + Pick(20);
    for (int i = 0; i < kRanks; ++i) {
      const TransferLimits limits{.transfers_max = 4 + Pick(20),
                                  .offers_parked_max = 4 + Pick(20),
                                  .block_bytes = 64 * sizeof(std::uint64_t)};
      ranks_.push_back(std::make_unique<Rank>(options, clock_, hub_.Attach(limits)));
    }
  }

  void Run(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      Act();
      for (const std::uint32_t i : {Pick(kRanks), Pick(kRanks)}) {
        ranks_[i]->harness.engine.RunOnce();
        ReactAsRouter();
      }
    }
    Quiesce();
    Check();
  }

 private:
  std::uint32_t Pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_() % below); }
  bool Chance(std::uint32_t percent) { return Pick(100) < percent; }
  Rank& AnyRank() { return *ranks_[Pick(kRanks)]; }

  void Act() {
    if (Chance(30)) StartRequest({.id = {.router = 7, .number = ++number_}, .attempt = 1});
    if (Chance(5)) Withdraw();
    if (Chance(2)) Replan();
    if (Chance(1)) LoseLink();
    if (Chance(1)) AnyRank().harness.model.FailNextStep(absl::InternalError("a step fails"));
    if (Chance(3)) hub_.CorruptBlocks(1);
    if (Chance(5)) hub_.Hold(Chance(50));
    if (Chance(20)) clock_.Advance(absl::Milliseconds(Pick(300)));
  }

  void StartOn(Rank& rank, StartCommand start) {
    start.link = rank.link;
    rank.harness.Push(start);
    rank.started[start.key] = std::move(start);
  }

  void StartRequest(const contract::RequestKey& key) {
    StartCommand start = WholeOf(key.id.number, 1 + Pick(300), 1 + Pick(60));
    start.key = key;
    if (Chance(70)) {  // one of a few prompts, cut somewhere
      start.prompt = PromptOf(static_cast<std::uint32_t>(start.prompt.size()), Pick(3));
      if (Chance(90)) start.block_hashes = HashesOf(start.prompt);
      if (Chance(5)) start.prompt_logprobs = 0;
    }
    start.ignore_eos = Chance(50);
    if (Chance(30)) start.sampling = {};
    if (Chance(2)) AnyRank().harness.model.FaultSeed(start.sampling.seed);
    if (Chance(10)) start.time_left = absl::Milliseconds(Pick(2000));
    Rank& first = AnyRank();
    Rank& second = &first == ranks_[0].get() ? *ranks_[1] : *ranks_[0];
    if (Chance(30)) {
      StartOn(first, start);
      return;
    }
    start.transfer = {.value = ++transfer_};
    StartCommand decode = start;
    decode.leg = Leg::kDecode;
    start.leg = Leg::kPrefill;
    start.peer_address = second.plane->LocalAddress();
    if (Chance(50)) {
      StartOn(first, start);
      StartOn(second, decode);
    } else {
      StartOn(second, decode);
      StartOn(first, start);
    }
  }

  void Withdraw() {
    if (number_ == 0) return;
    const contract::RequestKey key{.id = {.router = 7, .number = 1 + Pick(number_)}, .attempt = 1};
    if (Chance(50)) {
      AnyRank().harness.Push(CancelCommand{.key = key});
    } else {
      AnyRank().harness.Push(ReleaseCommand{.key = key});
    }
  }

  // A newer attempt at a recent request.
  void Replan() {
    if (number_ == 0) return;
    const std::uint64_t number = number_ - Pick(std::min(number_, 3u));
    StartRequest({.id = {.router = 7, .number = number}, .attempt = ++attempts_[number] + 1});
  }

  void LoseLink() {
    Rank& rank = AnyRank();
    rank.harness.Push(LinkLostCommand{.link = rank.link});
    lost_.insert({&rank, rank.link.value});
    rank.link.value += 1;
  }

  // As dispatch does: when one leg ends short of the whole, the other one is released.
  void ReactAsRouter() {
    for (int i = 0; i < kRanks; ++i) {
      Harness& here = ranks_[i]->harness;
      Harness& there = ranks_[1 - i]->harness;
      for (const contract::RequestKey& key : std::exchange(here.sink.ended_keys, {})) {
        if (here.sink.Of(key).ended->reason == EndReason::kHandedOver) continue;
        there.Push(ReleaseCommand{.key = key});
      }
    }
  }

  bool IsQuiet() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [](const auto& rank) {
      const LoadReport load = rank->harness.engine.load();
      return load.sequences_running + load.sequences_waiting + load.kv_blocks_used == 0;
    });
  }

  void Quiesce() {
    hub_.Hold(false);
    for (int round = 0; round < 10'000; ++round) {
      if (round > 10 && IsQuiet()) return;
      if (round % 50 == 49) clock_.Advance(absl::Seconds(5));  // leases run out
      for (const auto& rank : ranks_) rank->harness.engine.RunOnce();
      ReactAsRouter();
    }
  }

  void Check() {
    for (const auto& rank : ranks_) {
      EXPECT_EQ(rank->harness.pool->used(), 0u);
      EXPECT_EQ(rank->harness.engine.load().sequences_running, 0u);
      EXPECT_EQ(rank->harness.engine.load().sequences_waiting, 0u);
      EXPECT_EQ(rank->harness.metrics.kv_blocks_used.Value(), 0);
      cached_tokens_ += rank->harness.metrics.prefix_cache_hit_tokens_total.Value();
      evicted_blocks_ += rank->harness.metrics.prefix_cache_evicted_blocks_total.Value();
      for (const auto& [key, start] : rank->started) CheckRequest(*rank, key, start);
    }
  }

  void CheckRequest(Rank& rank, const contract::RequestKey& key, const StartCommand& start) {
    const Heard& heard = rank.harness.sink.Of(key);
    const bool lost = lost_.contains({&rank, start.link.value});
    const bool stale = IsStale(rank, key);
    EXPECT_TRUE(heard.ended.has_value() || lost || stale)
        << "number " << key.id.number << " attempt " << key.attempt;
    // The sink has checked: one end at most, no gaps, no token after the end.
    std::vector<std::int32_t> reply =
        rank.harness.model.Reply(start.prompt, start.sampling, start.tokens_max, start.ignore_eos);
    if (start.leg == Leg::kDecode) reply.erase(reply.begin());
    if (start.leg == Leg::kPrefill) reply.resize(1);
    ASSERT_LE(heard.tokens.size(), reply.size());
    EXPECT_TRUE(std::equal(heard.tokens.begin(), heard.tokens.end(), reply.begin()));
    if (!heard.sequences.empty()) {
      EXPECT_EQ(heard.sequences.front(), start.leg == Leg::kDecode ? 1u : 0u);
    }
    if (!heard.ended.has_value()) return;
    const EndReason reason = heard.ended->reason;
    const bool whole = reason == EndReason::kStop || reason == EndReason::kLength ||
                       reason == EndReason::kHandedOver;
    EXPECT_TRUE(!whole || heard.tokens.size() == reply.size());
    EXPECT_TRUE(reason != EndReason::kHandedOver || start.leg == Leg::kPrefill);
    ++ends_[whole ? "whole" : heard.ended->status.ToString()];
  }

  // An older attempt that came after a newer one: it is dropped without a word.
  static bool IsStale(const Rank& rank, const contract::RequestKey& key) {
    contract::RequestKey newest = key;
    for (const auto& [other, start] : rank.started) {
      if (other.id == key.id) newest.attempt = std::max(newest.attempt, other.attempt);
    }
    return newest.attempt > key.attempt;
  }

 public:
  const std::map<std::string, int>& ends() const { return ends_; }
  double cached_tokens() const { return cached_tokens_; }
  double evicted_blocks() const { return evicted_blocks_; }

 private:
  std::mt19937 random_;
  ManualClock clock_;
  MemoryKvHub hub_{clock_};
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::uint32_t number_ = 0;
  std::uint64_t transfer_ = 0;
  std::map<std::uint64_t, std::uint32_t> attempts_;
  std::set<std::pair<const Rank*, std::uint64_t>> lost_;
  std::map<std::string, int> ends_;
  double cached_tokens_ = 0;
  double evicted_blocks_ = 0;
};

TEST(EngineRandom, EveryRequestEndsOnceWhateverHappens) {
  std::uint32_t base = static_cast<std::uint32_t>(testing::UnitTest::GetInstance()->random_seed());
  if (base == 0) base = std::random_device{}() % 99'000 + 1;
  std::map<std::string, int> ends;
  double cached_tokens = 0;
  double evicted_blocks = 0;
  for (std::uint32_t seed = base; seed < base + 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed << " of base seed " << base);
    World world(seed);
    world.Run(300);
    for (const auto& [end, count] : world.ends()) ends[end] += count;
    cached_tokens += world.cached_tokens();
    evicted_blocks += world.evicted_blocks();
    if (testing::Test::HasFailure()) return;
  }
  // The test would prove little if hardly anything ended well, or nothing failed.
  EXPECT_GT(ends["whole"], 1000);
  EXPECT_GT(ends.size(), 8u);
  EXPECT_GT(cached_tokens, 50'000);
  EXPECT_GT(evicted_blocks, 200);
}

}  // namespace
}  // namespace baleen::worker
