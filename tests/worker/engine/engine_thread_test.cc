// The engine's loop on a thread of its own, under real time: it wakes for commands and for the data
// plane, and stops in order.
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/fake_model.h"
#include "tests/worker/engine/harness.h"
#include "worker/engine/engine.h"
#include "worker/kv_transfer/memory_kv_transfer.h"

namespace baleen::worker {
namespace {

// Hands ends over to the test's thread.
class WaitingSink final : public OutputSink {
 public:
  void Deliver(LinkId, StepReport report) override {
    {
      std::lock_guard lock(mutex_);
      tokens_ += report.tokens.size();
      for (EndedOutput& ended : report.ended) ended_.push_back(std::move(ended));
    }
    changed_.notify_all();
  }

  std::vector<EndedOutput> AwaitEnded(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_.size() >= count; }));
    return ended_;
  }

  void AwaitTokens(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(60), [&] { return tokens_ >= count; }));
  }

  std::size_t tokens() {
    std::lock_guard lock(mutex_);
    return tokens_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t tokens_ = 0;
  std::vector<EndedOutput> ended_;
};

// A rank that runs by itself.
class LiveRank {
 public:
  LiveRank(Role role, MemoryKvHub& hub)
      : plane_(hub.Attach({.block_bytes = 64 * sizeof(std::uint64_t)}, [this] { inbox.Wake(); })),
        engine_({.role = role}, {.clock = SystemClock(),
                                 .model = model,
                                 .blocks = *pool_,
                                 .transfer = plane_.get(),
                                 .inbox = inbox,
                                 .sink = sink,
                                 .metrics = metrics_}),
        thread_([this](std::stop_token stop) { engine_.Run(stop); }) {}

  void RequestStop() { thread_.request_stop(); }
  void Stop() {
    RequestStop();
    thread_.join();
    EXPECT_EQ(pool_->used(), 0u);
  }
  void AwaitBlocksUsed(std::uint32_t blocks) {
    const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (load().kv_blocks_used != blocks && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_EQ(load().kv_blocks_used, blocks);
  }
  std::string address() const { return plane_->LocalAddress(); }
  LoadReport load() const { return engine_.load(); }

  FakeModel model{{.limits = StepLimitsFor({})}};
  Inbox inbox{InboxLimits{}};
  WaitingSink sink;

 private:
  metrics::Registry registry_;
  metrics::WorkerMetrics metrics_{registry_, {.version = "0", .component = "worker"}};
  std::unique_ptr<BlockPool> pool_ =
      *BlockPool::Create({.blocks = 256, .block_bytes = 64 * sizeof(std::uint64_t)});
  std::unique_ptr<KvTransfer> plane_;
  Engine engine_;
  std::jthread thread_;
};

TEST(EngineThread, ManyThreadsStartAndAllEnd) {
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kEach = 40;
  MemoryKvHub hub(SystemClock());
  LiveRank rank(Role::kMixed, hub);
  {
    std::vector<std::jthread> senders;
    for (std::uint64_t sender = 0; sender < kThreads; ++sender) {
      senders.emplace_back([&rank, sender] {
        for (std::uint64_t i = 0; i < kEach; ++i) {
          ASSERT_TRUE(rank.inbox.Push(WholeOf(1 + sender * kEach + i, 10, 5)).ok());
          EXPECT_LE(rank.load().kv_blocks_used, 256u);  // may be asked at any time
        }
      });
    }
  }
  rank.sink.AwaitEnded(kThreads * kEach);
  EXPECT_EQ(rank.sink.tokens(), kThreads * kEach * 5);
  rank.Stop();
}

TEST(EngineThread, KvCrossesBetweenTwoLiveRanks) {
  constexpr std::uint64_t kRequests = 20;
  MemoryKvHub hub(SystemClock());
  LiveRank prefill(Role::kPrefill, hub);
  LiveRank decode(Role::kDecode, hub);
  for (std::uint64_t number = 1; number <= kRequests; ++number) {
    StartCommand start = WholeOf(number, 150, 8);
    start.transfer = {.value = number};
    start.leg = Leg::kDecode;
    ASSERT_TRUE(decode.inbox.Push(start).ok());
    start.leg = Leg::kPrefill;
    start.peer_address = decode.address();
    ASSERT_TRUE(prefill.inbox.Push(start).ok());
  }
  for (const EndedOutput& ended : prefill.sink.AwaitEnded(kRequests)) {
    EXPECT_EQ(ended.reason, EndReason::kHandedOver) << ended.status;
  }
  for (const EndedOutput& ended : decode.sink.AwaitEnded(kRequests)) {
    EXPECT_EQ(ended.reason, EndReason::kLength) << ended.status;
  }
  EXPECT_EQ(decode.sink.tokens(), kRequests * 7);
  prefill.Stop();
  decode.Stop();
}

TEST(EngineThread, StoppingEndsWhatRunsAndWhatWaits) {
  MemoryKvHub hub(SystemClock());
  LiveRank rank(Role::kMixed, hub);
  // From the second step on the model waits for the stop: on a busy machine the first request was
  // finished before the last had been pushed.
  std::promise<void> stop_requested;
  rank.model.on_step = [stopping = stop_requested.get_future().share(), steps = 0]() mutable {
    if (++steps > 1) stopping.wait();
  };
  // One that holds blocks for KV that nobody sends: its transfer is open when the engine stops, and
  // keeps the blocks until its last event. Started behind the others it would never be admitted.
  StartCommand reserved = WholeOf(99, 200, 10);
  reserved.leg = Leg::kDecode;
  reserved.transfer = {.value = 1};
  ASSERT_TRUE(rank.inbox.Push(reserved).ok());
  rank.AwaitBlocksUsed(4);
  // More than run at a time.
  for (std::uint64_t number = 1; number <= 80; ++number) {
    ASSERT_TRUE(rank.inbox.Push(WholeOf(number, 10, 1900)).ok());
  }
  rank.sink.AwaitTokens(1);
  rank.RequestStop();
  stop_requested.set_value();
  rank.Stop();
  const std::vector<EndedOutput> ended = rank.sink.AwaitEnded(81);
  EXPECT_EQ(ended.size(), 81u);
  for (const EndedOutput& end : ended) {
    EXPECT_EQ(contract::ReasonOf(end.status), contract::Reason::kDraining) << end.status;
  }
}

}  // namespace
}  // namespace baleen::worker
