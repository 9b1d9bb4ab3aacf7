// The prefix cache under a real model: the same tokens and log-probabilities, to the bit, as a rank
// without a cache gives.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "proto/contract/block_hash.h"
#include "tests/fakes/fake_group.h"
#include "tests/worker/model/model_test_util.h"
#include "worker/engine/engine.h"
#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/kv_transfer/memory_kv_transfer.h"
#include "worker/model/experts/expert_shard.h"

namespace baleen::worker {
namespace {

constexpr char kNano[] = "models/nano";
constexpr SchedulerLimits kScheduler{.sequences_max = 8, .prefill_tokens_max = 100};
constexpr std::uint32_t kReply = 4;

// What a request has been told: tokens, their log-probabilities and those of the most probable.
struct Reply {
  std::vector<std::int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<std::pair<std::int32_t, float>> top;
  std::uint32_t cached_tokens = 0;
  bool ended = false;

  // The bits that must not depend on the cache.
  bool SameAs(const Reply& other) const {
    return ended && other.ended && tokens == other.tokens && logprobs == other.logprobs &&
           top == other.top;
  }
};

class Replies final : public OutputSink {
 public:
  void Deliver(LinkId /*link*/, StepReport report) override {
    {
      const std::lock_guard lock(mutex_);
      for (const TokenOutput& token : report.tokens) {
        Reply& reply = replies_[token.key.id.number];
        reply.tokens.push_back(token.token.token);
        reply.logprobs.push_back(token.token.logprob);
        reply.top.insert(reply.top.end(), token.token.top.begin(), token.token.top.end());
      }
      for (const EndedOutput& ended : report.ended) {
        EXPECT_TRUE(ended.status.ok()) << ended.status;
        Reply& reply = replies_[ended.key.id.number];
        reply.ended = true;
        reply.cached_tokens = ended.cached_tokens;
      }
    }
    changed_.notify_all();
  }

  Reply Await(std::uint64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(100), [&] { return replies_[number].ended; });
    return replies_[number];
  }
  bool Ended(std::uint64_t number) {
    const std::lock_guard lock(mutex_);
    return replies_[number].ended;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Reply> replies_;
};

struct RankOptions {
  bool prefix_cache = true;
  std::uint32_t blocks = 64;
  Role role = Role::kMixed;
  KvTransfer* transfer = nullptr;
  bool in_group = false;
};

struct Rank {
  Rank(Model& model, const RankOptions& options)
      : group(inbox),
        pool(*BlockPool::Create(
            {.blocks = options.blocks, .block_bytes = model.info().kv_block_bytes})),
        engine(
            {.role = options.role, .scheduler = kScheduler, .prefix_cache = options.prefix_cache},
            {.clock = SystemClock(),
             .model = model,
             .blocks = *pool,
             .transfer = options.transfer,
             .group = options.in_group ? &group : nullptr,
             .inbox = inbox,
             .sink = replies,
             .metrics = metrics}) {}

  Reply Serve(StartCommand start) {
    const std::uint64_t number = start.key.id.number;
    Push(std::move(start));
    for (int i = 0; i < 1000 && !replies.Ended(number); ++i) engine.RunOnce();
    return replies.Await(number);
  }
  void Push(StartCommand start) { ASSERT_TRUE(inbox.Push(std::move(start)).ok()); }

  metrics::Registry registry;
  metrics::WorkerMetrics metrics{registry, {.version = "0", .component = "worker"}};
  Inbox inbox{InboxLimits{}};
  FakeGroup group;
  std::unique_ptr<BlockPool> pool;
  Replies replies;
  Engine engine;
};

// The first `prompt_tokens` of prompt `which`.
StartCommand Request(std::uint64_t number, std::uint32_t prompt_tokens, std::uint64_t which = 1) {
  StartCommand start{.link = {.value = 1},
                     .key = {.id = {.router = 7, .number = number}, .attempt = 1},
                     .prompt = RandomTokens(prompt_tokens, 512, which),
                     .sampling = {.temperature = 0.7f, .seed = 11, .logprobs = 20},
                     .tokens_max = kReply,
                     .ignore_eos = true};
  start.block_hashes = contract::HashBlocks({.tenant_salt = "s"}, start.prompt);
  return start;
}

class NanoCache : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = new LoadedModel(kNano, 1, StepLimitsFor(kScheduler));
    Rank rank(model(), {.prefix_cache = false});
    expected_ = new Reply(rank.Serve(Request(1, 150)));
    ASSERT_EQ(expected_->tokens.size(), kReply);
  }
  static void TearDownTestSuite() {
    delete expected_;
    delete model_;
  }
  static Model& model() { return model_->model(); }

  static void Expect(const Reply& reply, std::uint32_t cached_tokens) {
    EXPECT_TRUE(reply.SameAs(*expected_));
    EXPECT_EQ(reply.cached_tokens, cached_tokens);
  }

  static LoadedModel* model_;
  static Reply* expected_;  // to the prompt of 150 tokens
};
LoadedModel* NanoCache::model_ = nullptr;
Reply* NanoCache::expected_ = nullptr;

TEST_F(NanoCache, EmptyPartlyFilledAndFull) {
  Rank rank(model(), {});
  Expect(rank.Serve(Request(1, 150)), 0);
  Expect(rank.Serve(Request(2, 150)), 128);
  Rank partly(model(), {});
  partly.Serve(Request(1, 100));
  Expect(partly.Serve(Request(2, 150)), 64);
}

TEST_F(NanoCache, AfterEvictions) {
  Rank rank(model(), {.blocks = 5});
  rank.Serve(Request(1, 150));
  rank.Serve(Request(2, 200, /*which=*/2));  // takes four of five
  Expect(rank.Serve(Request(3, 150)), 64);
  Expect(rank.Serve(Request(4, 150)), 128);
}

TEST_F(NanoCache, WithNeighboursOfTheSameAndOtherPrompts) {
  Rank rank(model(), {});
  rank.Serve(Request(1, 70));
  for (std::uint64_t number = 2; number < 8; ++number) {
    rank.Push(Request(number, 150, number % 3 == 0 ? 3 : 1));
  }
  std::uint32_t cached_tokens = 0;
  for (std::uint64_t number = 2; number < 8; ++number) {
    while (!rank.replies.Ended(number)) ASSERT_TRUE(rank.engine.RunOnce());
    const Reply reply = rank.replies.Await(number);
    cached_tokens += reply.cached_tokens;
    EXPECT_EQ(reply.SameAs(*expected_), number % 3 != 0) << number;
  }
  EXPECT_GT(cached_tokens, 4 * 64u);
}

TEST_F(NanoCache, OverAPrefillAndADecodeRank) {
  MemoryKvHub hub(SystemClock());
  const TransferLimits limits{.block_bytes = model().info().kv_block_bytes};
  const auto from = hub.Attach(limits);
  const auto to = hub.Attach(limits);
  Rank prefill(model(), {.role = Role::kPrefill, .transfer = from.get()});
  Rank decode(model(), {.role = Role::kDecode, .transfer = to.get()});
  for (std::uint64_t number = 1; number <= 2; ++number) {
    StartCommand start = Request(number, 150);
    start.transfer = {.value = number};
    start.leg = Leg::kDecode;
    decode.Push(start);
    start.leg = Leg::kPrefill;
    start.peer_address = to->LocalAddress();
    prefill.Push(start);
    while (!prefill.replies.Ended(number) || !decode.replies.Ended(number)) {
      prefill.engine.RunOnce();
      decode.engine.RunOnce();
    }
    Reply reply = prefill.replies.Await(number);
    const Reply rest = decode.replies.Await(number);
    reply.tokens.insert(reply.tokens.end(), rest.tokens.begin(), rest.tokens.end());
    reply.logprobs.insert(reply.logprobs.end(), rest.logprobs.begin(), rest.logprobs.end());
    reply.top.insert(reply.top.end(), rest.top.begin(), rest.top.end());
    Expect(reply, number == 1 ? 0 : 128);
  }
}

TEST_F(NanoCache, InAGroupOfTwoRanks) {
  const auto directory = ModelDirectory::Open({.directory = kNano}).value();
  const ExpertShard shard{.placement = ContiguousModelPlacement(
                              directory->config(), PlacementShapeOf(directory->config(), 2))};
  const StepLimits limits = StepLimitsFor(kScheduler);
  AllToAllShape shape =
      ExchangeShapeOf(directory->config(), limits, shard.placement.shape, DispatchFormat::kBf16);
  shape.wait_max = absl::Seconds(60);
  const auto loopback = LoopbackGroup::Make(shape).value();
  std::vector<std::unique_ptr<LoadedModel>> models;
  std::vector<std::unique_ptr<Rank>> ranks;
  for (std::int32_t i = 0; i < 2; ++i) {
    models.push_back(std::make_unique<LoadedModel>(
        ModelOptions{.directory = kNano,
                     .limits = limits,
                     .shard = ExpertShard{.rank = i, .placement = shard.placement}},
        1));
    ranks.push_back(std::make_unique<Rank>(models.back()->model(), RankOptions{.in_group = true}));
    ranks.back()->group.Form(1, loopback->Join(i));
  }
  std::vector<std::jthread> threads;
  for (const auto& rank : ranks) {
    threads.emplace_back([&rank](std::stop_token stop) { rank->engine.Run(stop); });
  }
  while (ranks[0]->engine.load().forming || ranks[1]->engine.load().forming) {
    std::this_thread::yield();
  }
  ranks[0]->Push(Request(1, 150));
  ranks[1]->Push(Request(1, 150, /*which=*/2));
  Expect(ranks[0]->replies.Await(1), 0);
  ranks[1]->replies.Await(1);
  ranks[0]->Push(Request(2, 150));
  ranks[1]->Push(Request(2, 150));
  Expect(ranks[0]->replies.Await(2), 128);
  Expect(ranks[1]->replies.Await(2), 0);
}

}  // namespace
}  // namespace baleen::worker
