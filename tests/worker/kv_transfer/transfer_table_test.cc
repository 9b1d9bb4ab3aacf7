// The protocol's state machine against peers that say things late, twice, or wrong; frame by frame.
#include "worker/kv_transfer/protocol/transfer_table.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

#include "tests/worker/kv_transfer/conformance.h"
#include "worker/kv_transfer/protocol/checksum.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

constexpr std::size_t kBlockBytes = 64;
constexpr TransferId kId{77};
const std::string kPeer = "peer";

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// One table; the test plays its peer.
class TransferTableTest : public testing::Test {
 protected:
  void Hear(const Frame& frame) { table_.OnFrame(BytesOf(EncodeFrame(frame)), now_); }
  void HearOffer() {
    Hear(OfferFrame{.id = kId, .block_bytes = kBlockBytes, .reply_address = kPeer});
  }
  BlockHeader HeaderOf(std::uint32_t number) {
    return {.id = kId,
            .number = number,
            .length = kBlockBytes,
            .checksum = Checksum(source_.Block(number))};
  }
  std::optional<BlockToReceive> Begin(const BlockHeader& header) {
    return table_.BeginBlock(BytesOf(EncodeFrame(header)), header.length);
  }
  // A whole block comes, as it should.
  void HearBlock(std::uint32_t number) {
    const auto block = Begin(HeaderOf(number));
    ASSERT_TRUE(block);
    EXPECT_EQ(block->memory.data(), sink_.Block(number).data());
    table_.EndBlock(block->header, absl::OkStatus(), block->header.checksum, now_);
  }
  ClosingFrame ClosingOf(std::uint32_t blocks) {
    std::vector<std::uint64_t> checksums;
    for (std::uint32_t i = 0; i < blocks; i++) checksums.push_back(Checksum(source_.Block(i)));
    return {.id = kId,
            .blocks_total = blocks,
            .checksum = CombinedChecksum(kId, checksums, "manifest"),
            .manifest = "manifest"};
  }
  void ExpectFour() { ASSERT_EQ(table_.Expect(kId, sink_.Blocks(), now_), absl::OkStatus()); }
  void Open() {
    ExpectFour();
    HearOffer();
    EXPECT_EQ(Said(), "ready 4");
  }
  absl::Status SendBlock(std::uint32_t number) {
    return table_.Send(
        {.id = kId, .peer_address = kPeer, .block_number = number, .block = source_.Block(number)},
        now_);
  }
  absl::Status SendClosing(std::uint32_t blocks) {
    return table_.Send({.id = kId,
                        .peer_address = kPeer,
                        .last = true,
                        .blocks_total = blocks,
                        .manifest = "manifest"},
                       now_);
  }

  // The actions since the last call, as words.
  std::string Said() {
    std::string all;
    for (const Action& action : table_.TakeActions()) {
      if (!all.empty()) all += ", ";
      if (const auto* close = std::get_if<ClosePeer>(&action)) {
        all += "close " + close->peer;
        continue;
      }
      const auto& send = std::get<SendFrame>(action);
      EXPECT_EQ(send.peer, kPeer);
      const auto frame = DecodeFrame(BytesOf(send.frame));
      EXPECT_TRUE(frame.ok()) << frame.status();
      all += std::visit(Words(), *frame);
    }
    return all;
  }
  // The events since the last call, as words.
  std::string Happened() {
    std::string all;
    for (const TransferEvent& event : table_.TakeEvents()) {
      if (!all.empty()) all += ", ";
      EXPECT_EQ(event.id, kId);
      all += event.kind == TransferEventKind::kReceived ? "received " + event.manifest
             : event.kind == TransferEventKind::kHandedOver
                 ? "handed over"
                 : absl::StatusCodeToString(event.status.code());
    }
    return all;
  }

  struct Words {
    std::string operator()(const OfferFrame&) const { return "offer"; }
    std::string operator()(const ReadyFrame& f) const {
      return "ready " + std::to_string(f.blocks);
    }
    std::string operator()(const BlockHeader&) const { return "block"; }
    std::string operator()(const ClosingFrame& f) const {
      return "closing " + std::to_string(f.blocks_total);
    }
    std::string operator()(const HandedOverFrame&) const { return "handed over"; }
    std::string operator()(const FailedFrame& f) const {
      return "failed " + absl::StatusCodeToString(f.status.code());
    }
    std::string operator()(const WithdrawnFrame& f) const {
      return "withdrawn " + absl::StatusCodeToString(f.status.code());
    }
  };

  const TransferLimits limits_ = {.block_bytes = kBlockBytes, .lease = absl::Seconds(30)};
  absl::Duration now_ = absl::Seconds(1000);
  TransferTable table_{limits_, "self"};
  BlockMemory source_{4, kBlockBytes, 1};
  BlockMemory sink_{4, kBlockBytes, 0};
};

// Receiving.

TEST_F(TransferTableTest, ReceivesInAnyOrderEvenWithTheClosingFrameFirst) {
  Open();
  Hear(ClosingOf(3));
  HearBlock(2);
  HearBlock(0);
  EXPECT_EQ(Happened(), "");
  HearBlock(1);
  EXPECT_EQ(Said(), "handed over");
  EXPECT_EQ(Happened(), "received manifest");
  EXPECT_EQ(table_.size(), 0u);
  EXPECT_EQ(table_.dropped(), DroppedFrames{});
}

TEST_F(TransferTableTest, BlocksThatNobodyExpectsAreDropped) {
  EXPECT_FALSE(Begin(HeaderOf(0)));
  EXPECT_EQ(table_.dropped().unknown, 1u);
  HearOffer();  // parked
  EXPECT_FALSE(Begin(HeaderOf(0)));
  EXPECT_EQ(table_.dropped().unknown, 2u);
  Hear(ClosingOf(1));
  EXPECT_EQ(table_.dropped().unknown, 3u);
}

TEST_F(TransferTableTest, BlocksBeforeTheOfferAreDropped) {
  ExpectFour();
  EXPECT_FALSE(Begin(HeaderOf(0)));
  Hear(ClosingOf(1));
  EXPECT_EQ(table_.dropped().unknown, 2u);
  HearOffer();
  HearBlock(0);
}

TEST_F(TransferTableTest, DuplicateBlocksAreDropped) {
  Open();
  const auto block = Begin(HeaderOf(1));
  ASSERT_TRUE(block);
  EXPECT_FALSE(Begin(HeaderOf(1)));  // while it is in flight
  table_.EndBlock(block->header, absl::OkStatus(), block->header.checksum, now_);
  EXPECT_FALSE(Begin(HeaderOf(1)));  // when it is here
  EXPECT_EQ(table_.dropped().duplicate, 2u);
}

TEST_F(TransferTableTest, BlocksOutsideTheTransferAreDropped) {
  Open();
  BlockHeader header = HeaderOf(0);
  header.number = 4;
  EXPECT_FALSE(Begin(header));
  header.number = 0xffffffff;
  EXPECT_FALSE(Begin(header));
  for (const std::uint64_t length : {0u, 1u, 63u, 65u}) {
    header = HeaderOf(0);
    header.length = length;
    EXPECT_FALSE(Begin(header));
  }
  header = HeaderOf(0);
  EXPECT_FALSE(table_.BeginBlock(BytesOf(EncodeFrame(header)), kBlockBytes - 1));
  EXPECT_EQ(table_.dropped().wrong_shape, 7u);
  Hear(ClosingOf(2));
  EXPECT_FALSE(Begin(HeaderOf(2)));  // reserved, but beyond the total
  EXPECT_EQ(table_.dropped().wrong_shape, 8u);
  EXPECT_TRUE(sink_.IsAll(std::byte{0}));
}

TEST_F(TransferTableTest, FramesThatDoNotParseAreDropped) {
  Open();
  table_.OnFrame({}, now_);
  table_.OnFrame(BytesOf("nonsense"), now_);
  Hear(HeaderOf(0));  // a header without its block
  EXPECT_FALSE(table_.BeginBlock(BytesOf(EncodeFrame(ClosingOf(1))), kBlockBytes));
  EXPECT_FALSE(table_.BeginBlock({}, kBlockBytes));
  EXPECT_EQ(table_.dropped().malformed, 5u);
  EXPECT_EQ(Said(), "");
}

TEST_F(TransferTableTest, DamagedBlockFails) {
  Open();
  const auto block = Begin(HeaderOf(1));
  table_.EndBlock(block->header, absl::OkStatus(), block->header.checksum + 1, now_);
  EXPECT_EQ(Said(), "failed DATA_LOSS");
  EXPECT_EQ(Happened(), "DATA_LOSS");
}

TEST_F(TransferTableTest, BlockThatDoesNotComeFails) {
  Open();
  const auto block = Begin(HeaderOf(1));
  table_.EndBlock(block->header, absl::UnavailableError("reset"), 0, now_);
  EXPECT_EQ(Said(), "failed UNAVAILABLE");
  EXPECT_EQ(Happened(), "UNAVAILABLE");
}

TEST_F(TransferTableTest, ManifestThatDoesNotMatchTheBlocksFails) {
  for (int field = 0; field < 3; field++) {
    TransferTable table(limits_, "self");
    ASSERT_TRUE(table.Expect(kId, sink_.Blocks(), now_).ok());
    const OfferFrame offer{.id = kId, .block_bytes = kBlockBytes, .reply_address = kPeer};
    table.OnFrame(BytesOf(EncodeFrame(offer)), now_);
    for (std::uint32_t number = 0; number < 2; number++) {
      const BlockHeader header = HeaderOf(number);
      ASSERT_TRUE(table.BeginBlock(BytesOf(EncodeFrame(header)), kBlockBytes));
      table.EndBlock(header, absl::OkStatus(), header.checksum, now_);
    }
    ClosingFrame closing = ClosingOf(2);
    if (field == 0) closing.manifest = "Manifest";
    if (field == 1) closing.checksum++;
    if (field == 2) closing.blocks_total = 1;  // but block 1 has come
    table.OnFrame(BytesOf(EncodeFrame(closing)), now_);
    const auto events = table.TakeEvents();
    ASSERT_EQ(events.size(), 1u) << field;
    EXPECT_EQ(events[0].status.code(), absl::StatusCode::kDataLoss) << field;
  }
}

TEST_F(TransferTableTest, ClosingWithMoreThanWasReservedFails) {
  Open();
  ClosingFrame closing = ClosingOf(4);
  closing.blocks_total = 5;
  Hear(closing);
  EXPECT_EQ(Said(), "failed FAILED_PRECONDITION");
  EXPECT_EQ(Happened(), "FAILED_PRECONDITION");
}

TEST_F(TransferTableTest, ClosingTwiceIsDropped) {
  Open();
  Hear(ClosingOf(2));
  Hear(ClosingOf(1));
  EXPECT_EQ(table_.dropped().duplicate, 1u);
  HearBlock(0);
  EXPECT_EQ(Happened(), "");
  HearBlock(1);
  EXPECT_EQ(Happened(), "received manifest");
}

TEST_F(TransferTableTest, FramesAfterTheEndAreStale) {
  Open();
  HearBlock(0);
  Hear(ClosingOf(1));
  EXPECT_EQ(Happened(), "received manifest");
  EXPECT_EQ(Said(), "handed over");
  HearOffer();
  EXPECT_FALSE(Begin(HeaderOf(0)));
  Hear(ClosingOf(1));
  Hear(WithdrawnFrame{kId, absl::CancelledError("late")});
  EXPECT_EQ(table_.dropped().stale, 4u);
  EXPECT_EQ(Said(), "");
  EXPECT_EQ(Happened(), "");
}

TEST_F(TransferTableTest, OtherVersionIsRefusedByName) {
  ExpectFour();
  Hear(OfferFrame{.id = kId, .version = 2, .block_bytes = kBlockBytes, .reply_address = kPeer});
  EXPECT_EQ(Said(), "failed FAILED_PRECONDITION");
  const auto events = table_.TakeEvents();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_NE(events[0].status.message().find("version 2, the receiver 1"), std::string::npos)
      << events[0].status;
}

TEST_F(TransferTableTest, SecondOfferFromAnotherAddressIsDropped) {
  Open();
  Hear(OfferFrame{.id = kId, .block_bytes = kBlockBytes, .reply_address = "thief"});
  EXPECT_EQ(table_.dropped().duplicate, 1u);
  EXPECT_EQ(Said(), "");
}

TEST_F(TransferTableTest, ParkedOfferOutlivesNoLease) {
  HearOffer();
  now_ += limits_.lease;
  table_.OnTick(now_);
  EXPECT_EQ(Said(), "failed DEADLINE_EXCEEDED");
  ExpectFour();
  EXPECT_EQ(Happened(), "DEADLINE_EXCEEDED");
  EXPECT_EQ(table_.Expect(kId, sink_.Blocks(), now_).code(), absl::StatusCode::kAlreadyExists);
}

// Offers of invented ids took all places for a lease, and those of other peers were refused.
TEST(ParkedOffers, AFloodOfOnePeerCostsTheOthersNothing) {
  constexpr std::uint64_t kGenuine = 1'000'000;
  TransferTable table({.offers_parked_max = 4, .block_bytes = kBlockBytes}, "here");
  const auto offer = [&](std::uint64_t id, const std::string& peer) {
    const OfferFrame frame{.id = {id}, .block_bytes = kBlockBytes, .reply_address = peer};
    table.OnFrame(BytesOf(EncodeFrame(frame)), absl::ZeroDuration());
  };
  const auto refused = [&] {
    std::vector<std::string> peers;
    for (const Action& action : table.TakeActions()) {
      peers.push_back(std::get<SendFrame>(action).peer);
    }
    return peers;
  };
  using Peers = std::vector<std::string>;
  for (std::uint64_t id = 1; id <= 4; ++id) offer(id, "flood");
  EXPECT_EQ(refused(), Peers{});
  offer(5, "flood");
  EXPECT_EQ(refused(), Peers{"flood"});
  offer(kGenuine, "one");
  offer(kGenuine + 1, "two");
  EXPECT_EQ(refused(), Peers({"flood", "flood"})) << "it makes room";
  for (std::uint64_t id = 6; id <= 100; ++id) offer(id, "flood");
  EXPECT_EQ(refused(), Peers(95, "flood")) << "and gets no more";
  offer(kGenuine + 2, "three");
  EXPECT_EQ(refused(), Peers{"flood"});
  offer(kGenuine + 3, "four");
  EXPECT_EQ(refused(), Peers{"four"}) << "one place each";

  BlockMemory sink(1, kBlockBytes, 0);
  for (std::uint64_t id = kGenuine; id < kGenuine + 3; ++id) {
    EXPECT_EQ(table.Expect({id}, sink.Blocks(), absl::ZeroDuration()), absl::OkStatus());
  }
  EXPECT_EQ(refused(), Peers({"one", "two", "three"})) << "these are answers: ready";
  EXPECT_TRUE(table.TakeEvents().empty());
}

TEST_F(TransferTableTest, PeerLostWithAParkedOfferFailsTheLateExpect) {
  HearOffer();
  table_.OnPeerLost(kPeer, absl::UnavailableError("gone"), now_);
  EXPECT_EQ(Said(), "");
  ExpectFour();
  EXPECT_EQ(Happened(), "UNAVAILABLE");
}

TEST_F(TransferTableTest, CancelledReceiverKeepsMemoryUntilTheBlockInFlightHasEnded) {
  Open();
  const auto block = Begin(HeaderOf(0));
  table_.Cancel(kId, now_);
  EXPECT_EQ(Said(), "failed CANCELLED");
  EXPECT_EQ(Happened(), "");
  EXPECT_FALSE(Begin(HeaderOf(1)));
  Hear(ClosingOf(1));
  EXPECT_EQ(table_.dropped().stale, 2u);
  table_.EndBlock(block->header, absl::OkStatus(), block->header.checksum, now_);
  EXPECT_EQ(Happened(), "CANCELLED");
  EXPECT_EQ(Said(), "");
}

TEST_F(TransferTableTest, HangingReceiverClosesTheConnectionOnce) {
  Open();
  const auto block = Begin(HeaderOf(0));
  table_.Cancel(kId, now_);
  EXPECT_EQ(Said(), "failed CANCELLED");
  now_ += absl::Milliseconds(999);
  table_.OnTick(now_);
  EXPECT_EQ(Said(), "");
  now_ += absl::Milliseconds(1);
  table_.OnTick(now_);
  EXPECT_EQ(Said(), "close peer");
  table_.OnTick(now_ + absl::Seconds(5));
  EXPECT_EQ(Said(), "");
  table_.EndBlock(block->header, absl::UnavailableError("closed"), 0, now_);
  EXPECT_EQ(Happened(), "CANCELLED");
}

TEST_F(TransferTableTest, LeaseOfAHangingReceiverClosesTheConnectionFirst) {
  Open();
  const auto block = Begin(HeaderOf(0));
  now_ += limits_.lease;
  table_.OnTick(now_);
  EXPECT_EQ(Said(), "close peer, failed DEADLINE_EXCEEDED");
  EXPECT_EQ(Happened(), "");
  table_.EndBlock(block->header, absl::UnavailableError("closed"), 0, now_);
  EXPECT_EQ(Happened(), "DEADLINE_EXCEEDED");
}

// Sending.

TEST_F(TransferTableTest, SendsNothingBeforeTheReceiverIsReady) {
  ASSERT_TRUE(SendBlock(1).ok());
  EXPECT_EQ(Said(), "offer");
  EXPECT_FALSE(table_.NextBlock());
  Hear(ReadyFrame{kId, 4});
  ASSERT_TRUE(SendBlock(0).ok());
  const auto first = table_.NextBlock();
  const auto second = table_.NextBlock();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->number, 1u);
  EXPECT_EQ(second->number, 0u);
  EXPECT_FALSE(table_.NextBlock());
  ASSERT_TRUE(SendClosing(2).ok());
  table_.OnBlockSent(*second, absl::OkStatus(), 10, now_);
  EXPECT_EQ(Said(), "");
  table_.OnBlockSent(*first, absl::OkStatus(), 11, now_);
  EXPECT_EQ(Said(), "closing 2");
  Hear(HandedOverFrame{kId});
  EXPECT_EQ(Happened(), "handed over");
  EXPECT_EQ(SendBlock(2).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TransferTableTest, AnswersNobodyAskedForAreDropped) {
  Hear(ReadyFrame{kId, 4});
  Hear(HandedOverFrame{kId});
  Hear(FailedFrame{kId, absl::InternalError("x")});
  EXPECT_EQ(table_.dropped().unknown, 3u);
  ASSERT_TRUE(SendBlock(0).ok());
  Hear(HandedOverFrame{kId});  // nothing was closed
  EXPECT_EQ(table_.dropped().unknown, 4u);
  Hear(ReadyFrame{kId, 4});
  Hear(ReadyFrame{kId, 1});
  EXPECT_EQ(table_.dropped().duplicate, 1u);
  EXPECT_EQ(Happened(), "");
}

TEST_F(TransferTableTest, BlocksInFlightAreLimitedAndTransfersTakeTurns) {
  BlockMemory many(20, kBlockBytes, 2);
  for (const std::uint64_t id : {1, 2}) {
    for (std::uint32_t number = 0; number < 10; number++) {
      ASSERT_TRUE(table_
                      .Send({.id = {id},
                             .peer_address = kPeer,
                             .block_number = number,
                             .block = many.Block(number)},
                            now_)
                      .ok());
    }
    Hear(ReadyFrame{{id}, 10});
  }
  std::vector<BlockToSend> sent;
  while (auto block = table_.NextBlock()) sent.push_back(*block);
  ASSERT_EQ(sent.size(), 2 * kBlocksInFlightMax);
  for (std::size_t i = 1; i < sent.size(); i++) EXPECT_NE(sent[i].id, sent[i - 1].id);
  table_.OnBlockSent(sent[0], absl::OkStatus(), 1, now_);
  const auto next = table_.NextBlock();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->id, sent[0].id);
  EXPECT_FALSE(table_.NextBlock());
}

TEST_F(TransferTableTest, RefusedSenderEndsWithTheReason) {
  ASSERT_TRUE(SendBlock(0).ok());
  Said();
  Hear(FailedFrame{kId, absl::ResourceExhaustedError("parked")});
  EXPECT_EQ(Said(), "");
  const auto events = table_.TakeEvents();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(events[0].status.message().find("parked"), std::string::npos);
}

TEST_F(TransferTableTest, CancelledSenderKeepsMemoryUntilTheBlockInFlightHasEnded) {
  ASSERT_TRUE(SendBlock(0).ok());
  ASSERT_TRUE(SendBlock(1).ok());
  Hear(ReadyFrame{kId, 4});
  const auto block = table_.NextBlock();
  Said();
  table_.Cancel(kId, now_);
  EXPECT_EQ(Said(), "withdrawn CANCELLED");
  EXPECT_FALSE(table_.NextBlock());
  EXPECT_EQ(Happened(), "");
  EXPECT_TRUE(SendBlock(2).ok());  // the final event is under way
  table_.OnBlockSent(*block, absl::OkStatus(), 1, now_);
  EXPECT_EQ(Happened(), "CANCELLED");
  EXPECT_EQ(Said(), "");
}

TEST_F(TransferTableTest, FailedBlockFailsTheSender) {
  ASSERT_TRUE(SendBlock(0).ok());
  Hear(ReadyFrame{kId, 4});
  const auto block = table_.NextBlock();
  Said();
  table_.OnBlockSent(*block, absl::UnavailableError("reset"), 1, now_);
  EXPECT_EQ(Said(), "withdrawn UNAVAILABLE");
  EXPECT_EQ(Happened(), "UNAVAILABLE");
}

TEST_F(TransferTableTest, LeaseOfAHangingSenderTakesOthersOverTheSameConnectionAlong) {
  ASSERT_TRUE(SendBlock(0).ok());
  Hear(ReadyFrame{kId, 4});
  const auto block = table_.NextBlock();
  ASSERT_TRUE(block);
  now_ += limits_.lease / 2;
  const SendPart other{.id = {78}, .peer_address = kPeer, .block = source_.Block(0)};
  ASSERT_TRUE(table_.Send(other, now_).ok());
  Said();
  now_ += limits_.lease / 2;
  table_.OnTick(now_);
  EXPECT_EQ(Said(), "close peer, withdrawn DEADLINE_EXCEEDED, withdrawn UNAVAILABLE");
  const auto events = table_.TakeEvents();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].id.value, 78u);
  EXPECT_EQ(events[0].status.code(), absl::StatusCode::kUnavailable);
  table_.OnBlockSent(*block, absl::UnavailableError("closed"), 0, now_);
  EXPECT_EQ(Happened(), "DEADLINE_EXCEEDED");
}

TEST_F(TransferTableTest, PeerLostEndsBothDirectionsWithoutAWord) {
  Open();
  const SendPart part{.id = {78}, .peer_address = kPeer, .block = source_.Block(0)};
  ASSERT_TRUE(table_.Send(part, now_).ok());
  Said();
  table_.OnPeerLost("somebody else", absl::UnavailableError("gone"), now_);
  EXPECT_FALSE(table_.HasEvents());
  table_.OnPeerLost(kPeer, absl::UnavailableError("gone"), now_);
  EXPECT_EQ(table_.TakeEvents().size(), 2u);
  EXPECT_EQ(Said(), "");
  EXPECT_EQ(table_.size(), 0u);
}

TEST_F(TransferTableTest, CancelAllTellsEverybody) {
  Open();
  const SendPart part{.id = {78}, .peer_address = kPeer, .block = source_.Block(0)};
  ASSERT_TRUE(table_.Send(part, now_).ok());
  Hear(OfferFrame{.id = {79}, .block_bytes = kBlockBytes, .reply_address = kPeer});
  Said();
  table_.CancelAll(absl::CancelledError("bye"), now_);
  EXPECT_EQ(Said(), "withdrawn CANCELLED, failed CANCELLED, failed CANCELLED");
  EXPECT_EQ(table_.TakeEvents().size(), 2u);
}

TEST(EndedTransfers, ForgetsTheOldest) {
  EndedTransfers ended(2);
  for (const std::uint64_t id : {1, 2, 3}) {
    ended.Remember({id}, {.status = absl::CancelledError(std::to_string(id))});
  }
  ended.Remember({3}, {.status = absl::OkStatus(), .begun_here = true});
  EXPECT_EQ(ended.Find({1}), nullptr);
  ASSERT_NE(ended.Find({2}), nullptr);
  ASSERT_NE(ended.Find({3}), nullptr);
  EXPECT_TRUE(ended.Find({3})->begun_here);
}

TEST(TransferLimits, AreValidated) {
  const TransferLimits good{.block_bytes = 1};
  EXPECT_TRUE(ValidateTransferLimits(good).ok());
  std::vector<TransferLimits> bad(4, good);
  bad[0].block_bytes = 0;
  bad[1].transfers_max = 0;
  bad[2].manifest_bytes_max = kManifestBytesMax + 1;
  bad[3].lease = absl::ZeroDuration();
  for (const TransferLimits& limits : bad) {
    EXPECT_EQ(ValidateTransferLimits(limits).code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace baleen::worker
