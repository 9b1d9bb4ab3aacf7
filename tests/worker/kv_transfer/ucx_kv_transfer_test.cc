// The UCX implementation: the conformance suite over the transports that UCX_TLS allows, peers that
// lie, and peers that stand still.
#include "worker/kv_transfer/ucx_kv_transfer.h"

#include <time.h>
#include <ucs/debug/log_def.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "tests/worker/kv_transfer/conformance.h"
#include "tests/worker/kv_transfer/raw_peer.h"
#include "tests/worker/kv_transfer/ucx_fabric.h"
#include "worker/kv_transfer/protocol/checksum.h"
#include "worker/ucx/ucx_log.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

// One honest rank, and a raw peer that the test plays.
class UcxRawPeer : public KvTransferConformance {
 protected:
  void SetUp() override {
    KvTransferConformance::SetUp();
    rank_ = &NewRank();
    raw_ = std::make_unique<RawPeer>();
  }
  void TearDown() override {
    KvTransferConformance::TearDown();
    raw_.reset();
  }

  // Polls the rank and lets the raw peer make progress.
  void Together(const std::function<bool()>& done) {
    Until([&] {
      raw_->Progress();
      return done();
    });
  }
  DroppedFrames Dropped() { return static_cast<UcxKvTransfer&>(**rank_).Dropped(); }

  BlockHeader HeaderOf(TransferId id, std::uint32_t number) {
    return {.id = id,
            .number = number,
            .length = kBlockBytes,
            .checksum = Checksum(source_.Block(number))};
  }
  void Send(TransferId id, std::uint32_t number) {
    raw_->Send(rank_->address(), HeaderOf(id, number), source_.Block(number));
  }
  ClosingFrame ClosingOf(TransferId id, std::uint32_t blocks) {
    std::vector<std::uint64_t> checksums;
    for (std::uint32_t i = 0; i < blocks; i++) checksums.push_back(Checksum(source_.Block(i)));
    return {.id = id, .blocks_total = blocks, .checksum = CombinedChecksum(id, checksums, "")};
  }
  // The rank expects `id`, and the raw peer has offered it.
  void Open(TransferId id) {
    Expect(*rank_, id, sink_);
    raw_->Say(rank_->address(),
              OfferFrame{.id = id, .block_bytes = kBlockBytes, .reply_address = raw_->address()});
    Together([&] { return raw_->Heard<ReadyFrame>().has_value(); });
  }
  // A rank of its own sends one block to the raw peer, which begins to fetch it and then stands
  // still. The block is too large for the queues in between (8 MiB of shared memory, or the buffers
  // of sockets).
  Rank& SenderThatHangs(TransferId id, BlockMemory& block) {
    Rank& sender = NewRank({.block_bytes = kHugeBytes, .lease = Limits().lease});
    const SendPart part{.id = id, .peer_address = raw_->address(), .block = block.Block(0)};
    EXPECT_EQ(sender->Send(part), absl::OkStatus());
    Begun(sender, id);
    Together([&] { return raw_->Heard<OfferFrame>().has_value(); });
    raw_->Say(sender.address(), ReadyFrame{.id = id, .blocks = 1});
    Together([&] { return raw_->blocks_begun() == 1; });
    return sender;
  }
  void UntilPolled(int times) {
    Until([&] { return times-- == 0; });
  }
  // The rank and the raw peer can use each other, whatever was before.
  void CheckThatTheyGoOn() {
    raw_->Forget(rank_->address());
    source_ = BlockMemory(4, kBlockBytes, 5);
    raw_->ForgetFrames();
    const TransferId id = NextId();
    Open(id);
    for (std::uint32_t number = 0; number < 4; number++) Send(id, number);
    raw_->Say(rank_->address(), ClosingOf(id, 4));
    Together([&] { return rank_->Ended(id); });
    EXPECT_EQ(rank_->EventOf(id).kind, TransferEventKind::kReceived) << rank_->EventOf(id).status;
    EXPECT_TRUE(sink_ == source_);
  }

  BlockMemory source_{4, kBlockBytes, 1};
  BlockMemory sink_{4, kBlockBytes, 0};
  static constexpr std::size_t kHugeBytes = std::size_t{48} << 20;
  Rank* rank_ = nullptr;
  std::unique_ptr<RawPeer> raw_;
};

TEST_P(UcxRawPeer, AnHonestRawPeerIsServed) {
  const TransferId id = NextId();
  Open(id);
  EXPECT_EQ(raw_->Heard<ReadyFrame>()->blocks, 4u);
  raw_->Say(rank_->address(), ClosingOf(id, 3));  // before the blocks
  for (const std::uint32_t number : {2, 0, 1}) Send(id, number);
  Together([&] { return rank_->Ended(id) && raw_->Heard<HandedOverFrame>(); });
  EXPECT_EQ(rank_->EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_EQ(Dropped(), DroppedFrames{});
}

TEST_P(UcxRawPeer, NonsenseIsDroppedAndCounted) {
  const TransferId id = NextId();
  Open(id);
  raw_->SayBytes(rank_->address(), "");
  raw_->SayBytes(rank_->address(), "nonsense");
  raw_->SayBytes(rank_->address(), std::string(100'000, 'x'));
  raw_->Say(rank_->address(), HeaderOf(id, 0));  // a header without a block
  std::string damaged = EncodeFrame(ClosingOf(id, 1));
  damaged[17] ^= 1;
  raw_->SayBytes(rank_->address(), damaged);
  raw_->SendBehind(rank_->address(), "", source_.Block(0));
  raw_->SendBehind(rank_->address(), "nonsense", source_.Block(0));
  raw_->SendBehind(rank_->address(), EncodeFrame(ClosingOf(id, 1)), source_.Block(0));
  Together([&] { return Dropped().malformed == 8; });
  EXPECT_TRUE(sink_.IsAll(std::byte{0}));
  for (std::uint32_t number = 0; number < 4; number++) Send(id, number);
  raw_->Say(rank_->address(), ClosingOf(id, 4));
  Together([&] { return rank_->Ended(id); });
  EXPECT_EQ(rank_->EventOf(id).kind, TransferEventKind::kReceived);
}

TEST_P(UcxRawPeer, BlocksThatDoNotBelongAreNeverWritten) {
  const TransferId id = NextId();
  Open(id);
  const TransferId unknown = NextId();
  Send(unknown, 0);
  BlockHeader header = HeaderOf(id, 0);
  header.number = 4;
  raw_->Send(rank_->address(), header, source_.Block(0));
  header = HeaderOf(id, 0);
  header.length = kBlockBytes - 1;
  raw_->Send(rank_->address(), header, source_.Block(0).first(kBlockBytes - 1));
  header = HeaderOf(id, 0);  // says one thing, brings another
  raw_->Send(rank_->address(), header, source_.Block(0).first(kBlockBytes / 2));
  BlockMemory large(2, kBlockBytes, 3);
  header.length = 2 * kBlockBytes;
  raw_->Send(rank_->address(), header, {large.Block(0).data(), 2 * kBlockBytes});
  Together([&] { return Dropped().unknown == 1 && Dropped().wrong_shape == 4; });
  EXPECT_TRUE(sink_.IsAll(std::byte{0}));
  Together([&] { return raw_->blocks_sent() == 5; });  // nobody is left waiting
}

TEST_P(UcxRawPeer, DuplicateBlocksAreNotWrittenTwice) {
  const TransferId id = NextId();
  Open(id);
  Send(id, 1);
  Together([&] { return raw_->blocks_sent() == 1; });
  BlockMemory other(1, kBlockBytes, 99);
  raw_->Send(rank_->address(), HeaderOf(id, 1), other.Block(0));
  Together([&] { return Dropped().duplicate == 1; });
  EXPECT_TRUE(std::ranges::equal(sink_.Block(1), source_.Block(1)));
}

TEST_P(UcxRawPeer, BlockThatDoesNotMatchItsChecksumFails) {
  const TransferId id = NextId();
  Open(id);
  BlockMemory damaged = source_;
  damaged.Block(2)[kBlockBytes / 3] ^= std::byte{4};
  raw_->Send(rank_->address(), HeaderOf(id, 2), damaged.Block(2));
  Together([&] { return rank_->Ended(id) && raw_->Heard<FailedFrame>(); });
  EXPECT_EQ(rank_->EventOf(id).status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(raw_->Heard<FailedFrame>()->status.code(), absl::StatusCode::kDataLoss);
}

TEST_P(UcxRawPeer, ManifestThatDoesNotMatchFails) {
  const TransferId id = NextId();
  Open(id);
  Send(id, 0);
  ClosingFrame closing = ClosingOf(id, 1);
  closing.manifest = "swapped";
  raw_->Say(rank_->address(), closing);
  Together([&] { return rank_->Ended(id); });
  EXPECT_EQ(rank_->EventOf(id).status.code(), absl::StatusCode::kDataLoss);
}

TEST_P(UcxRawPeer, AnswersOutOfTurnAreDropped) {
  const TransferId id = NextId();
  const SendPart part{.id = id, .peer_address = raw_->address(), .block = source_.Block(0)};
  raw_->Say(rank_->address(), ReadyFrame{.id = id, .blocks = 4});
  Together([&] { return Dropped().unknown == 1; });
  ASSERT_TRUE((*rank_)->Send(part).ok());
  Begun(*rank_, id);
  Together([&] { return raw_->Heard<OfferFrame>().has_value(); });
  raw_->Say(rank_->address(), HandedOverFrame{id});
  Together([&] { return Dropped().unknown == 2; });
  EXPECT_FALSE(rank_->Ended(id));
  raw_->Say(rank_->address(), FailedFrame{id, absl::ResourceExhaustedError("full")});
  Together([&] { return rank_->Ended(id); });
  EXPECT_EQ(rank_->EventOf(id).status.code(), absl::StatusCode::kResourceExhausted);
}

// Peers that stand still (SIGSTOP, a frozen container) are no error to UCX: a block hangs on its
// way.

TEST_P(UcxRawPeer, CancelOfASenderWhoseReceiverStandsStill) {
  const TransferId id = NextId();
  BlockMemory huge(1, kHugeBytes, 1);
  Rank& sender = SenderThatHangs(id, huge);
  sender->Cancel(id);
  UntilPolled(5);
  EXPECT_FALSE(sender.Ended(id)) << "memory is given back while a block is in flight";
  clock_.Advance(absl::Seconds(1));
  Until([&] { return sender.Ended(id); });
  EXPECT_EQ(sender.EventOf(id).status.code(), absl::StatusCode::kCancelled);
  huge.Fill(std::byte{0xEE});  // ours again
  CheckThatTheyGoOn();
}

TEST_P(UcxRawPeer, LeaseOfASenderWhoseReceiverStandsStill) {
  const TransferId id = NextId();
  auto huge = std::make_unique<BlockMemory>(1, kHugeBytes, 1);
  Rank& sender = SenderThatHangs(id, *huge);
  UntilLeaseEnds(sender, id);
  EXPECT_EQ(sender.EventOf(id).status.code(), absl::StatusCode::kDeadlineExceeded);
  huge.reset();  // a read of it now would be a report of ASan
  CheckThatTheyGoOn();
}

TEST_P(UcxRawPeer, LeaseOfAReceiverWhoseSenderStandsStill) {
  const TransferId id = NextId();
  Open(id);
  Send(id, 0);
  Send(id, 0);  // dropped as a duplicate: then the first one is being fetched, or is here
  Until([&] { return Dropped().duplicate == 1; });
  EXPECT_EQ(raw_->blocks_sent(), 0);
  UntilLeaseEnds(*rank_, id);
  EXPECT_EQ(rank_->EventOf(id).status.code(), absl::StatusCode::kDeadlineExceeded);
  sink_.Fill(std::byte{0xDD});
  // Now the sender goes on with what it was about to do.
  const std::uint64_t malformed = Dropped().malformed;
  raw_->SayBytes(rank_->address(), "nonsense");
  Together([&] { return Dropped().malformed > malformed; });
  EXPECT_TRUE(sink_.IsAll(std::byte{0xDD})) << "written after the final event";
  CheckThatTheyGoOn();
}

INSTANTIATE_TEST_SUITE_P(On, UcxRawPeer, testing::Values(OverUcx()), FabricName);

TEST(UcxKvTransfer, BadLimitsAreRefused) {
  EXPECT_EQ(UcxKvTransfer::Create({}).status().code(), absl::StatusCode::kInvalidArgument);
}

// In a process of its own, because it changes the environment.
TEST(UcxKvTransferDeathTest, TransportsThatDoNotReportDeadPeersAreRefusedAtStart) {
  const auto start = [] {
    setenv("UCX_TLS", "self", 1);
    const auto transfer = UcxKvTransfer::Create({.limits = {.block_bytes = 1}});
    std::fprintf(stderr, "%s\n", transfer.status().ToString().c_str());
    _exit(0);
  };
  EXPECT_EXIT(start(), testing::ExitedWithCode(0), "FAILED_PRECONDITION: .*UCX_TLS=self");
}

// CPU time of this process, in seconds.
double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Two connected ranks without anything to do sleep.
TEST(UcxKvTransfer, IdleRanksSleep) {
  constexpr std::size_t kBytes = 4096;
  std::mutex mutex;
  std::condition_variable woken;
  bool wake = false;
  const auto on_wake = [&] {
    const std::lock_guard lock(mutex);
    wake = true;
    woken.notify_all();
  };
  const TransferLimits limits{.block_bytes = kBytes};
  auto decode = UcxKvTransfer::Create({.limits = limits, .wake = on_wake});
  auto prefill = UcxKvTransfer::Create({.limits = limits});
  ASSERT_TRUE(decode.ok() && prefill.ok());
  BlockMemory source(1, kBytes, 1);
  BlockMemory sink(1, kBytes, 0);
  ASSERT_TRUE((*decode)->Expect({1}, sink.Blocks()).ok());
  const SendPart part{
      .id = {1}, .peer_address = (*decode)->LocalAddress(), .block = source.Block(0)};
  ASSERT_TRUE((*prefill)->Send(part).ok());
  ASSERT_TRUE((*prefill)->Send({.id = {1}, .last = true, .blocks_total = 1}).ok());
  std::unique_lock lock(mutex);
  ASSERT_TRUE(woken.wait_for(lock, std::chrono::seconds(30), [&] { return wake; }));
  EXPECT_FALSE((*prefill)->Lanes().empty());

  // Nothing will wake this wait: it is the time over which the two are watched.
  wake = false;
  (void)(*decode)->Poll();
  const double cpu_before = CpuSeconds();
  EXPECT_FALSE(woken.wait_for(lock, std::chrono::seconds(1), [&] { return wake; }));
  EXPECT_LT(CpuSeconds() - cpu_before, 0.04) << "two ranks, 2 % of a core each";
}

}  // namespace

std::vector<FabricMaker> Fabrics() { return {OverUcx()}; }

// UCX writes to standard output by itself: a warning of its came before a worker's ready line, and
// was taken for it.
TEST(UcxLog, GoesWhereOursGoes) {
  TakeUcxLog();
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  ucs_log_component_config_t component{.log_level = UCS_LOG_LEVEL_WARN};
  ucs_log_dispatch("/a/b/tcp_iface.c", 816, "f", UCS_LOG_LEVEL_WARN, &component, "no %s", "device");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("UCX says message=\"no device\" source=\"tcp_iface.c:816\""),
            std::string::npos)
      << said;
}

}  // namespace baleen::worker
