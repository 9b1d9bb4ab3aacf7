// The in-memory twin: the conformance suite, and the faults that only it can make at will.
#include "worker/kv_transfer/memory_kv_transfer.h"

#include <atomic>
#include <thread>

#include "tests/worker/kv_transfer/conformance.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

class MemoryFabric final : public Fabric {
 public:
  std::unique_ptr<KvTransfer> NewEndpoint(const TransferLimits& limits, const Clock& clock,
                                          std::function<void()> wake) override {
    if (!hub_) hub_ = std::make_unique<MemoryKvHub>(clock);
    return hub_->Attach(limits, std::move(wake));
  }
  MemoryKvHub& hub() { return *hub_; }

 private:
  std::unique_ptr<MemoryKvHub> hub_;
};

const FabricMaker kMemory = {"Memory", [] { return std::make_unique<MemoryFabric>(); }};

class MemoryFaults : public KvTransferConformance {
 protected:
  MemoryKvHub& hub() { return static_cast<MemoryFabric&>(*fabric_).hub(); }
  // Both ends polled once: everything moves one hop.
  void Step() {
    for (const auto& rank : ranks_) rank->Collect();
  }
  static absl::StatusCode CodeOf(const Rank& rank, TransferId id) {
    return rank.EventOf(id).status.code();
  }

  BlockMemory source_{3, kBlockBytes, 1};
  BlockMemory sink_{3, kBlockBytes, 0};
};

TEST_P(MemoryFaults, DropPeerFailsItsTransfers) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  Rank& other = NewRank();
  const TransferId incoming = NextId(), outgoing = NextId(), safe = NextId();
  Expect(decode, incoming, sink_);
  SendBlock(prefill, decode, incoming, source_, 0);
  SendBlock(decode, prefill, outgoing, source_, 0);
  BlockMemory safe_sink(3, kBlockBytes, 0);
  Expect(decode, safe, safe_sink);
  SendBlock(other, decode, safe, source_, 0);
  UntilArrived(prefill, decode);
  hub().DropPeer(prefill.address());
  Until([&] { return decode.Ended(incoming) && decode.Ended(outgoing); });
  EXPECT_EQ(CodeOf(decode, incoming), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(decode, outgoing), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(decode.Ended(safe));
  prefill.Destroy();
}

TEST_P(MemoryFaults, DropPeerWhileABlockArrives) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId();
  Expect(decode, id, sink_);
  SendAll(prefill, decode, id, source_, 3);
  Step();  // decode has the offer
  Step();  // prefill may send, decode begins to fetch
  hub().DropPeer(prefill.address());
  UntilFailed(decode, id, absl::StatusCode::kUnavailable);
  prefill.Destroy();
}

TEST_P(MemoryFaults, CorruptBlockFailsBothSides) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId(), next = NextId();
  hub().CorruptBlocks(1);
  Expect(decode, id, sink_);
  SendAll(prefill, decode, id, source_, 3);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(CodeOf(decode, id), absl::StatusCode::kDataLoss);
  EXPECT_EQ(CodeOf(prefill, id), absl::StatusCode::kDataLoss);
  Expect(decode, next, sink_);
  SendAll(prefill, decode, next, source_, 3);
  UntilEnded(next, prefill, decode);
  EXPECT_TRUE(sink_ == source_);
}

TEST_P(MemoryFaults, RefusedOffersFailTheSender) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId(), next = NextId();
  hub().RefuseOffers(decode.address(), absl::ResourceExhaustedError("no blocks are free"));
  SendAll(prefill, decode, id, source_, 3);
  UntilFailed(prefill, id, absl::StatusCode::kResourceExhausted);
  hub().RefuseOffers(decode.address(), absl::OkStatus());
  Expect(decode, next, sink_);
  SendAll(prefill, decode, next, source_, 3);
  UntilEnded(next, prefill, decode);
  EXPECT_EQ(CodeOf(prefill, next), absl::StatusCode::kOk);
}

TEST_P(MemoryFaults, HoldStopsEverythingUntilReleased) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId();
  hub().Hold(true);
  Expect(decode, id, sink_);
  SendAll(prefill, decode, id, source_, 3);
  for (int i = 0; i < 20; i++) Step();
  EXPECT_FALSE(prefill.Ended(id) || decode.Ended(id));
  hub().Hold(false);
  UntilEnded(id, prefill, decode);
  EXPECT_TRUE(sink_ == source_);
}

// A block that hangs on its way keeps the memory: no final event, until the connection is closed
// for it a second later.
TEST_P(MemoryFaults, CancelWaitsForBlocksInFlightThenClosesTheConnection) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId(), bystander = NextId();
  BlockMemory bystander_sink(3, kBlockBytes, 0);
  Expect(decode, bystander, bystander_sink);
  Expect(decode, id, sink_);
  SendBlock(prefill, decode, bystander, source_, 0);
  UntilArrived(prefill, decode);
  SendAll(prefill, decode, id, source_, 3);
  Step();
  Step();
  hub().Hold(true);
  decode->Cancel(id);
  prefill->Cancel(id);
  for (int i = 0; i < 20; i++) Step();
  EXPECT_FALSE(decode.Ended(id) || prefill.Ended(id));
  clock_.Advance(absl::Seconds(1));
  for (int i = 0; i < 4; i++) Step();
  EXPECT_TRUE(decode.Ended(id) && prefill.Ended(id));
  EXPECT_EQ(CodeOf(decode, id), absl::StatusCode::kCancelled);
  EXPECT_EQ(CodeOf(prefill, id), absl::StatusCode::kCancelled);
  EXPECT_EQ(CodeOf(decode, bystander), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CodeOf(prefill, bystander), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(sink_.IsAll(std::byte{0}));
  hub().Hold(false);
}

TEST_P(MemoryFaults, LeaseClosesAConnectionThatHangs) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  const TransferId id = NextId();
  Expect(decode, id, sink_);
  SendAll(prefill, decode, id, source_, 3);
  Step();
  Step();
  hub().Hold(true);
  clock_.Advance(Limits().lease);
  for (int i = 0; i < 4; i++) Step();
  // The one that is polled first acts, and the other one loses its connection.
  EXPECT_EQ(CodeOf(prefill, id), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(decode, id), absl::StatusCode::kUnavailable);
  hub().Hold(false);
}

// Two engines on two threads, as in production.
TEST(MemoryKvTransfer, TwoThreads) {
  constexpr std::size_t kBlockBytes = 4096;
  constexpr std::uint64_t kTransfers = 200;
  ManualClock clock;
  MemoryKvHub hub(clock);
  const TransferLimits limits{.block_bytes = kBlockBytes};
  const auto prefill = hub.Attach(limits);
  const auto decode = hub.Attach(limits);
  BlockMemory source(2, kBlockBytes, 1);
  std::vector<BlockMemory> sinks(kTransfers, BlockMemory(2, kBlockBytes, 0));
  std::thread sender([&] {
    const std::string peer = decode->LocalAddress();
    std::uint64_t begun = 0;
    std::uint64_t ended = 0;
    while (ended < kTransfers) {
      if (begun < kTransfers && begun - ended < 16) {
        const TransferId id{++begun};
        EXPECT_TRUE(
            prefill
                ->Send(
                    {.id = id, .peer_address = peer, .block_number = 1, .block = source.Block(1)})
                .ok());
        EXPECT_TRUE(prefill->Send({.id = id, .block_number = 0, .block = source.Block(0)}).ok());
        EXPECT_TRUE(prefill->Send({.id = id, .last = true, .blocks_total = 2}).ok());
      }
      for (const TransferEvent& event : prefill->Poll()) {
        EXPECT_EQ(event.kind, TransferEventKind::kHandedOver) << event.status;
        ended++;
      }
    }
  });
  std::uint64_t expected = 0;
  std::uint64_t received = 0;
  while (received < kTransfers) {
    if (expected < kTransfers && expected - received < 16) {
      EXPECT_TRUE(decode->Expect({expected + 1}, sinks[expected].Blocks()).ok());
      expected++;
    }
    for (const TransferEvent& event : decode->Poll()) {
      EXPECT_EQ(event.kind, TransferEventKind::kReceived) << event.status;
      EXPECT_TRUE(sinks[event.id.value - 1] == source);
      received++;
    }
  }
  while (!decode->Poll().empty()) continue;
  std::atomic<bool> joined = false;
  std::thread pump([&] {
    while (!joined) {
      decode->Poll();
      std::this_thread::yield();
    }
  });
  sender.join();
  joined = true;
  pump.join();
}

TEST(MemoryKvTransfer, WakesOnceUntilPolled) {
  ManualClock clock;
  MemoryKvHub hub(clock);
  const TransferLimits limits{.block_bytes = 8};
  int wakes = 0;
  const auto prefill = hub.Attach(limits);
  const auto decode = hub.Attach(limits, [&] { wakes++; });
  BlockMemory source(1, 8, 1);
  for (std::uint64_t i = 1; i <= 3; i++) {
    ASSERT_TRUE(
        prefill->Send({.id = {i}, .peer_address = decode->LocalAddress(), .block = source.Block(0)})
            .ok());
  }
  EXPECT_EQ(wakes, 1);
  decode->Poll();
  EXPECT_EQ(wakes, 1);
  prefill->Cancel({1});
  EXPECT_EQ(wakes, 2);
}

INSTANTIATE_TEST_SUITE_P(On, MemoryFaults, testing::Values(kMemory), FabricName);

}  // namespace

std::vector<FabricMaker> Fabrics() { return {kMemory}; }

}  // namespace baleen::worker
