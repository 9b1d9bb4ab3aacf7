// Two processes over UCX: one is stopped or killed at every stage, the other one lives on.
#include <atomic>
#include <memory>
#include <string>

#include "tests/worker/kv_transfer/conformance.h"
#include "tests/worker/kv_transfer/peer_process.h"
#include "tests/worker/kv_transfer/ucx_fabric.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

class UcxProcesses : public KvTransferConformance {
 protected:
  void SetUp() override {
    KvTransferConformance::SetUp();
    rank_ = &NewRank(PeerLimits());
    peer_ = std::make_unique<PeerProcess>();
  }

  // The rank sends blocks [first, end) of `id` to the peer process.
  void Send(TransferId id, BlockMemory& memory, std::uint32_t first, std::uint32_t end) {
    for (std::uint32_t number = first; number < end; number++) {
      ASSERT_EQ((*rank_)->Send({.id = id,
                                .peer_address = peer_->address(),
                                .block_number = number,
                                .block = memory.Block(number)}),
                absl::OkStatus());
    }
    Begun(*rank_, id);
  }
  void Close(TransferId id, std::uint32_t blocks) {
    ASSERT_EQ((*rank_)->Send({.id = id, .last = true, .blocks_total = blocks}), absl::OkStatus());
  }
  void RankEnds(TransferId id) {
    Until([&] { return rank_->Ended(id); });
  }
  std::string EndOf(TransferId id) {
    return absl::StatusCodeToString(rank_->EventOf(id).status.code());
  }
  // Waits until the beginning of block `number` has been written by the data plane.
  void UntilWritten(BlockMemory& memory, std::size_t number) {
    auto* word = reinterpret_cast<std::uint64_t*>(memory.Block(number).data());
    Until([&] { return std::atomic_ref(*word).load() != 0; });
  }
  // One whole transfer in each direction: all that went before has arrived, and the two can use
  // each other.
  void CheckThatTheyWork() {
    const TransferId there = NextId(), back = NextId();
    BlockMemory source(3, kPeerBlockBytes, there.value);
    BlockMemory sink(3, kPeerBlockBytes, 0);
    peer_->Expect(there, 3);
    Send(there, source, 0, 3);
    Close(there, 3);
    RankEnds(there);
    EXPECT_EQ(EndOf(there), "OK") << rank_->EventOf(there).status;
    EXPECT_EQ(peer_->AwaitEvent(there), "received OK intact");
    Expect(*rank_, back, sink);
    peer_->Send(back, rank_->address(), 0, 3);
    peer_->Close(back, rank_->address(), 3);
    RankEnds(back);
    EXPECT_EQ(EndOf(back), "OK") << rank_->EventOf(back).status;
    EXPECT_EQ(peer_->AwaitEvent(back), "handed_over OK intact");
    EXPECT_TRUE(sink == BlockMemory(3, kPeerBlockBytes, back.value));
  }

  Rank* rank_ = nullptr;
  std::unique_ptr<PeerProcess> peer_;
};

TEST_P(UcxProcesses, HandOverInBothDirections) {
  CheckThatTheyWork();
  const TransferId id = NextId();
  BlockMemory source(kPeerBlocks, kPeerBlockBytes, id.value);
  peer_->Expect(id, kPeerBlocks);
  Send(id, source, 0, kPeerBlocks);
  Close(id, kPeerBlocks);
  RankEnds(id);
  EXPECT_EQ(EndOf(id), "OK");
  EXPECT_EQ(peer_->AwaitEvent(id), "received OK intact");
}

TEST_P(UcxProcesses, ReceiverKilledBetweenBlocks) {
  const TransferId id = NextId(), parked = NextId();
  BlockMemory source(4, kPeerBlockBytes, id.value);
  peer_->Expect(id, 4);
  Send(id, source, 0, 2);
  Send(parked, source, 0, 1);
  CheckThatTheyWork();
  peer_->Kill();
  Until([&] { return rank_->Ended(id) && rank_->Ended(parked); });
  EXPECT_EQ(EndOf(id), "UNAVAILABLE");
  EXPECT_EQ(EndOf(parked), "UNAVAILABLE");
  peer_ = std::make_unique<PeerProcess>();
  CheckThatTheyWork();
}

// Stopped first, so that blocks are surely on their way when it dies.
TEST_P(UcxProcesses, ReceiverKilledWithBlocksInFlight) {
  const TransferId id = NextId();
  auto source = std::make_unique<BlockMemory>(kPeerBlocks, kPeerBlockBytes, id.value);
  peer_->Expect(id, kPeerBlocks);
  Send(id, *source, 0, 1);
  CheckThatTheyWork();
  peer_->Stop();
  Send(id, *source, 1, kPeerBlocks);
  peer_->Kill();
  RankEnds(id);
  EXPECT_EQ(EndOf(id), "UNAVAILABLE");
  source.reset();  // a read of it now would be a report of ASan
  peer_ = std::make_unique<PeerProcess>();
  CheckThatTheyWork();
}

TEST_P(UcxProcesses, SenderKilledBetweenBlocks) {
  const TransferId id = NextId();
  BlockMemory sink(kPeerBlocks, kPeerBlockBytes, 0);
  Expect(*rank_, id, sink);
  peer_->Send(id, rank_->address(), 0, 2);
  CheckThatTheyWork();
  peer_->Kill();
  RankEnds(id);
  EXPECT_EQ(EndOf(id), "UNAVAILABLE");
  sink.Fill(std::byte{0xDD});
  peer_ = std::make_unique<PeerProcess>();
  CheckThatTheyWork();
  EXPECT_TRUE(sink.IsAll(std::byte{0xDD}));
}

TEST_P(UcxProcesses, SenderKilledWhileBlocksCome) {
  for (int round = 0; round < 3; round++) {
    const TransferId id = NextId();
    BlockMemory sink(kPeerBlocks, kPeerBlockBytes, 0);
    Expect(*rank_, id, sink);
    peer_->Send(id, rank_->address(), 0, kPeerBlocks);
    // Somewhere in the middle: 64 MiB take tens of milliseconds.
    UntilWritten(sink, static_cast<std::size_t>(round * 20));
    peer_->Kill();
    RankEnds(id);
    EXPECT_EQ(EndOf(id), "UNAVAILABLE");
    sink.Fill(std::byte{0xDD});
    peer_ = std::make_unique<PeerProcess>();
    CheckThatTheyWork();
    EXPECT_TRUE(sink.IsAll(std::byte{0xDD}));
  }
}

TEST_P(UcxProcesses, StoppedReceiverCostsALeaseAndComesBack) {
  const TransferId id = NextId();
  auto source = std::make_unique<BlockMemory>(kPeerBlocks, kPeerBlockBytes, id.value);
  peer_->Expect(id, kPeerBlocks);
  Send(id, *source, 0, 1);
  CheckThatTheyWork();
  peer_->Stop();
  Send(id, *source, 1, kPeerBlocks);
  UntilLeaseEnds(*rank_, id);
  EXPECT_EQ(EndOf(id), "DEADLINE_EXCEEDED");
  source.reset();
  peer_->Continue();
  EXPECT_TRUE(peer_->AwaitEvent(id).starts_with("failed "));
  CheckThatTheyWork();
}

TEST_P(UcxProcesses, StoppedSenderCostsALeaseAndComesBack) {
  const TransferId id = NextId();
  BlockMemory sink(kPeerBlocks, kPeerBlockBytes, 0);
  Expect(*rank_, id, sink);
  peer_->Send(id, rank_->address(), 0, kPeerBlocks);
  UntilWritten(sink, 10);
  peer_->Stop();
  UntilLeaseEnds(*rank_, id);
  EXPECT_EQ(EndOf(id), "DEADLINE_EXCEEDED");
  sink.Fill(std::byte{0xDD});
  peer_->Continue();
  EXPECT_TRUE(peer_->AwaitEvent(id).starts_with("failed "));
  CheckThatTheyWork();
  EXPECT_TRUE(sink.IsAll(std::byte{0xDD})) << "written after the final event";
}

INSTANTIATE_TEST_SUITE_P(On, UcxProcesses, testing::Values(OverUcx()), FabricName);

}  // namespace
}  // namespace baleen::worker
