// Engines that step as a group, each on a thread of its own, over the loopback all-to-all.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/fake_group.h"
#include "tests/worker/engine/harness.h"
#include "worker/expert_parallel/loopback_all_to_all.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using testing::HasSubstr;

constexpr auto kLong = std::chrono::seconds(60);

// Hands what it hears over to the test's thread.
class SharedSink final : public OutputSink {
 public:
  void Deliver(LinkId link, StepReport report) override {
    {
      const std::lock_guard lock(mutex_);
      sink_.Deliver(link, std::move(report));
    }
    changed_.notify_all();
  }

  Heard Of(const contract::RequestKey& key) {
    const std::lock_guard lock(mutex_);
    return sink_.Of(key);
  }
  Heard AwaitEnded(const contract::RequestKey& key) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kLong, [&] { return sink_.Of(key).ended.has_value(); }));
    return sink_.Of(key);
  }
  void AwaitTokens(const contract::RequestKey& key, std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kLong, [&] {
      return sink_.Of(key).tokens.size() >= count || sink_.Of(key).ended.has_value();
    }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  RecordingSink sink_;
};

// A rank that runs by itself.
class GroupRank {
 public:
  explicit GroupRank(const LockstepOptions& lockstep = {})
      : engine_({.lockstep = lockstep}, {.clock = SystemClock(),
                                         .model = model,
                                         .blocks = *pool_,
                                         .group = &group,
                                         .inbox = inbox,
                                         .sink = sink,
                                         .metrics = metrics_}) {}

  void Run() {
    thread_ = std::jthread([this](std::stop_token stop) { engine_.Run(stop); });
  }
  void Stop() {
    thread_.request_stop();
    thread_.join();
  }
  void Start(StartCommand command) { ASSERT_TRUE(inbox.Push(std::move(command)).ok()); }
  // The whole reply of WholeOf(number, ...), as it must be whoever computes beside it.
  std::vector<std::int32_t> ReplyTo(const StartCommand& command) const {
    return model.Reply(command.prompt, command.sampling, command.tokens_max, command.ignore_eos);
  }

  template <typename Condition>
  void Await(Condition condition) {
    const auto limit = std::chrono::steady_clock::now() + kLong;
    while (!condition() && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    EXPECT_TRUE(condition());
  }
  LoadReport load() const { return engine_.load(); }
  bool may_leave() const { return engine_.may_leave(); }

  FakeModel model{{.limits = StepLimitsFor({})}};
  Inbox inbox{InboxLimits{}};
  FakeGroup group{inbox};
  SharedSink sink;

 private:
  metrics::Registry registry_;
  metrics::WorkerMetrics metrics_{registry_, {.version = "0", .component = "worker"}};
  std::unique_ptr<BlockPool> pool_ =
      *BlockPool::Create({.blocks = 256, .block_bytes = 64 * sizeof(std::uint64_t)});
  Engine engine_;
  std::jthread thread_;
};

AllToAllShape Shape(std::int32_t ranks) {
  return {.ranks = ranks,
          .slots_per_rank = 1,
          .slots_per_row = 1,
          .row_bytes = 2,
          .output_bytes = 2,
          .rows_max = 1024,
          .wait_max = absl::Seconds(30)};
}

// Ranks in one group, and what forms it again.
class EngineGroup : public testing::Test {
 protected:
  void Make(std::size_t ranks, const LockstepOptions& lockstep = {}) {
    for (std::size_t i = 0; i < ranks; ++i) {
      ranks_.push_back(std::make_unique<GroupRank>(lockstep));
    }
    Form(1);
    for (const auto& rank : ranks_) rank->Run();
  }
  void Form(std::uint64_t epoch) {
    loopbacks_.push_back(
        LoopbackGroup::Make(Shape(static_cast<std::int32_t>(ranks_.size()))).value());
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      ranks_[i]->group.Form(epoch, loopbacks_.back()->Join(static_cast<std::int32_t>(i)));
    }
  }
  GroupRank& rank(std::size_t i) { return *ranks_[i]; }

  std::vector<std::unique_ptr<LoopbackGroup>> loopbacks_;  // outlive their endpoints
  std::vector<std::unique_ptr<GroupRank>> ranks_;
};

TEST_F(EngineGroup, RepliesAreThoseOfARankAlone) {
  Make(3);
  std::vector<StartCommand> commands;
  for (std::uint64_t number = 1; number <= 30; ++number) {
    commands.push_back(WholeOf(number, 10 + 29 * (number % 7), 5 + number % 11));
    rank(number % 3).Start(commands.back());
  }
  for (const StartCommand& command : commands) {
    GroupRank& home = rank(command.key.id.number % 3);
    const Heard heard = home.sink.AwaitEnded(command.key);
    EXPECT_EQ(heard.tokens, home.ReplyTo(command));
    EXPECT_EQ(heard.ended->reason, EndReason::kLength);
  }
}

TEST_F(EngineGroup, ARankWithoutRequestsLendsItsExperts) {
  Make(2);
  const StartCommand command = WholeOf(1, 20, 12);
  rank(0).Start(command);
  EXPECT_EQ(rank(0).sink.AwaitEnded(command.key).tokens, rank(0).ReplyTo(command));
  rank(0).Stop();
  rank(1).Stop();
  EXPECT_EQ(rank(0).model.steps.size(), 12u);
  ASSERT_EQ(rank(1).model.steps.size(), 12u);
  for (const auto& rows : rank(1).model.steps) EXPECT_TRUE(rows.empty());
}

// A rank that goes takes the requests of all: each ends once, with a reason. The group serves again
// when it has formed again.
TEST_F(EngineGroup, ARankThatGoesEndsTheEpochForAll) {
  Make(2);
  const StartCommand long_a = WholeOf(1, 20, 2000);
  const StartCommand long_b = WholeOf(2, 20, 2000);
  rank(0).Start(long_a);
  rank(1).Start(long_b);
  rank(0).sink.AwaitTokens(long_a.key, 3);
  rank(1).sink.AwaitTokens(long_b.key, 3);
  rank(0).Stop();  // goes, in the middle of its reply
  const Heard lost = rank(1).sink.AwaitEnded(long_b.key);
  EXPECT_EQ(contract::ReasonOf(lost.ended->status), Reason::kWorkerLost);
  EXPECT_THAT(std::string(lost.ended->status.message()), HasSubstr("rank 0 has gone, in the "));
  rank(1).Await([&] { return rank(1).group.broken().size() == 1; });
  rank(1).Await([&] { return rank(1).load().forming; });

  const StartCommand early = WholeOf(4, 5, 5);
  rank(1).Start(early);
  const Heard refused = rank(1).sink.AwaitEnded(early.key);
  EXPECT_EQ(contract::ReasonOf(refused.ended->status), Reason::kWorkerLost);

  ranks_[0] = std::make_unique<GroupRank>();
  Form(2);
  rank(0).Run();
  rank(1).Await([&] { return !rank(1).load().forming; });
  const StartCommand late = WholeOf(5, 5, 5);
  rank(1).Start(late);
  EXPECT_EQ(rank(1).sink.AwaitEnded(late.key).tokens, rank(1).ReplyTo(late));
}

TEST_F(EngineGroup, AFaultOfTheModelBreaksTheGroupByName) {
  Make(2);
  rank(1).model.FailNextStep(absl::InternalError("the device is on fire"));
  const StartCommand command = WholeOf(1, 20, 2000);
  rank(0).Start(command);
  EXPECT_THAT(std::string(rank(0).sink.AwaitEnded(command.key).ended->status.message()),
              HasSubstr("rank 1 has gone"));
  rank(1).Await([&] { return rank(1).group.broken().size() == 1; });
  EXPECT_THAT(std::string(rank(1).group.broken()[0].message()), HasSubstr("the device is on fire"));
}

// All ranks adopt a change of the placement before the same step, though they prepare it at
// different times, and also while nobody has work.
TEST_F(EngineGroup, ChangesOfThePlacementAreAdoptedTogether) {
  Make(2);
  const StartCommand command = WholeOf(1, 20, 1500);
  rank(0).Start(command);
  rank(0).sink.AwaitTokens(command.key, 3);
  rank(0).group.Prepare(1);
  rank(0).sink.AwaitTokens(command.key, 10);
  EXPECT_EQ(rank(0).group.adopted(), 0u) << "rank 1 is not ready";
  rank(1).group.Prepare(1);
  rank(0).Await([&] { return rank(0).group.adopted() == 1; });
  rank(1).Await([&] { return rank(1).group.adopted() == 1; });
  EXPECT_EQ(rank(0).sink.AwaitEnded(command.key).tokens, rank(0).ReplyTo(command));

  rank(0).group.Prepare(3);
  rank(1).group.Prepare(2);
  rank(0).Await([&] { return rank(0).group.adopted() == 2; });
  rank(1).Await([&] { return rank(1).group.adopted() == 2; });
}

// A rank of a group drains: the others take nothing new and finish what they have, and it may leave
// without their having been told to stop. (Once the others went on taking requests, and lost them
// when it left.)
TEST_F(EngineGroup, ADrainedRankDrainsItsGroup) {
  Make(2);
  const StartCommand command = WholeOf(1, 20, 500);
  rank(0).Start(command);
  rank(0).sink.AwaitTokens(command.key, 1);
  ASSERT_TRUE(rank(1).inbox.Push(DrainCommand{}).ok());
  rank(0).Await([&] { return rank(0).load().draining; });
  const StartCommand late = WholeOf(2, 20, 5);
  rank(0).Start(late);
  EXPECT_EQ(contract::ReasonOf(rank(0).sink.AwaitEnded(late.key).ended->status), Reason::kDraining);
  EXPECT_EQ(rank(0).sink.AwaitEnded(command.key).tokens, rank(0).ReplyTo(command));
  rank(1).Await([&] { return rank(1).may_leave(); });
}

// A rank that has drained stays until nobody needs its experts. (The test once asked after the last
// reply had ended, when the group may already have let everybody go.)
TEST_F(EngineGroup, NobodyMayLeaveBeforeAllHaveDrained) {
  Make(2);
  const StartCommand command = WholeOf(1, 20, 500);
  rank(0).Start(command);
  rank(0).sink.AwaitTokens(command.key, 1);
  ASSERT_TRUE(rank(1).inbox.Push(DrainCommand{}).ok());
  rank(1).Await([&] { return rank(1).may_leave(); });
  EXPECT_TRUE(rank(0).sink.Of(command.key).ended.has_value()) << "rank 1 left its peer";
  EXPECT_EQ(rank(0).sink.AwaitEnded(command.key).tokens, rank(0).ReplyTo(command));
  rank(0).Await([&] { return rank(0).may_leave(); });
}

}  // namespace
}  // namespace baleen::worker
