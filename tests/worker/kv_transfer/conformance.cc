#include "tests/worker/kv_transfer/conformance.h"

#include <algorithm>
#include <numeric>
#include <random>

namespace baleen::worker {
namespace {

using contract::TransferId;

// Happy paths.

TEST_P(KvTransferConformance, HandsOverOneBlock) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 1);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  SendAll(prefill, decode, id, source, 1, "first token 42");
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_EQ(decode.EventOf(id).status, absl::OkStatus());
  EXPECT_EQ(decode.EventOf(id).manifest, "first token 42");
  EXPECT_EQ(decode.EventOf(id).bytes, kBlockBytes);
  EXPECT_EQ(prefill.EventOf(id).kind, TransferEventKind::kHandedOver);
  EXPECT_EQ(prefill.EventOf(id).bytes, kBlockBytes);
  EXPECT_TRUE(sink == source);
}

TEST_P(KvTransferConformance, HandsOverSeventyBlocksSentBeforeExpect) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(70, kBlockBytes, 2);
  BlockMemory sink(70, kBlockBytes, 0);
  const TransferId id = NextId();
  SendAll(prefill, decode, id, source, 70);
  UntilArrived(prefill, decode);
  EXPECT_FALSE(decode.Ended(id));
  EXPECT_TRUE(sink.IsAll(std::byte{0}));
  Expect(decode, id, sink);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_EQ(decode.EventOf(id).bytes, 70 * kBlockBytes);
  EXPECT_TRUE(sink == source);
}

TEST_P(KvTransferConformance, TakesBlocksInAnyOrderAndTheClosingPartFirst) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(12, kBlockBytes, 3);
  BlockMemory sink(12, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  SendClosing(prefill, decode, id, 12);
  std::vector<std::uint32_t> order(12);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  for (const std::uint32_t number : order) SendBlock(prefill, decode, id, source, number);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_TRUE(sink == source);
}

TEST_P(KvTransferConformance, BlocksMayComeAsTheyAreComputed) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(5, kBlockBytes, 4);
  BlockMemory sink(5, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  for (std::uint32_t number = 0; number < 5; number++) {
    SendBlock(prefill, decode, id, source, number);
    UntilArrived(prefill, decode);
    EXPECT_FALSE(decode.Ended(id));
  }
  SendClosing(prefill, decode, id, 5);
  UntilEnded(id, prefill, decode);
  EXPECT_TRUE(sink == source);
}

TEST_P(KvTransferConformance, MayUseFewerBlocksThanWereReserved) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(2, kBlockBytes, 5);
  BlockMemory sink(4, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  SendAll(prefill, decode, id, source, 2, "");
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).bytes, 2 * kBlockBytes);
  EXPECT_EQ(decode.EventOf(id).manifest, "");
  EXPECT_TRUE(std::ranges::equal(sink.Block(1), source.Block(1)));
  EXPECT_TRUE(std::ranges::all_of(sink.Block(2), [](std::byte b) { return b == std::byte{0}; }));
}

TEST_P(KvTransferConformance, CarriesTheLargestManifest) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 6);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  std::string manifest(Limits().manifest_bytes_max, '\0');
  std::iota(manifest.begin(), manifest.end(), '\0');
  Expect(decode, id, sink);
  SendAll(prefill, decode, id, source, 1, manifest);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).manifest, manifest);
}

TEST_P(KvTransferConformance, ARankMaySendToItself) {
  Rank& rank = NewRank();
  BlockMemory source(3, kBlockBytes, 7);
  BlockMemory sink(3, kBlockBytes, 0);
  const TransferId id = NextId();
  ASSERT_EQ(rank->Expect(id, sink.Blocks()), absl::OkStatus());
  for (std::uint32_t number = 0; number < 3; number++) {
    ASSERT_EQ(rank->Send({.id = id,
                          .peer_address = rank.address(),
                          .block_number = number,
                          .block = source.Block(number)}),
              absl::OkStatus());
  }
  ASSERT_EQ(rank->Send({.id = id, .last = true, .blocks_total = 3}), absl::OkStatus());
  Until([&] { return rank.events() == 2; });
  EXPECT_TRUE(sink == source);
  ranks_.clear();  // two events of one id are right here
}

TEST_P(KvTransferConformance, InterleavesTransfersInBothDirections) {
  Rank& a = NewRank();
  Rank& b = NewRank();
  BlockMemory source_1(6, kBlockBytes, 8), source_2(6, kBlockBytes, 9),
      source_3(6, kBlockBytes, 10);
  BlockMemory sink_1(6, kBlockBytes, 0), sink_2(6, kBlockBytes, 0), sink_3(6, kBlockBytes, 0);
  const TransferId id_1 = NextId(), id_2 = NextId(), id_3 = NextId();
  Expect(b, id_1, sink_1);
  Expect(b, id_2, sink_2);
  for (std::uint32_t number = 0; number < 6; number++) {
    SendBlock(a, b, id_1, source_1, number);
    SendBlock(a, b, id_2, source_2, 5 - number);
    SendBlock(b, a, id_3, source_3, number);
  }
  Expect(a, id_3, sink_3);
  SendClosing(a, b, id_2, 6, "two");
  SendClosing(a, b, id_1, 6, "one");
  SendClosing(b, a, id_3, 6, "three");
  UntilEnded(id_1, a, b);
  UntilEnded(id_2, a, b);
  UntilEnded(id_3, a, b);
  EXPECT_EQ(b.EventOf(id_1).manifest, "one");
  EXPECT_EQ(b.EventOf(id_2).manifest, "two");
  EXPECT_EQ(a.EventOf(id_3).manifest, "three");
  EXPECT_TRUE(sink_1 == source_1);
  EXPECT_TRUE(sink_2 == source_2);
  EXPECT_TRUE(sink_3 == source_3);
}

TEST_P(KvTransferConformance, ManyTransfersAmongThreeRanks) {
  std::vector<Rank*> ranks = {&NewRank(), &NewRank(), &NewRank()};
  constexpr int kTransfers = 48;
  constexpr std::uint32_t kBlocks = 5;
  std::vector<BlockMemory> sources, sinks;
  std::vector<TransferId> ids;
  for (int i = 0; i < kTransfers; i++) {
    sources.emplace_back(kBlocks, kBlockBytes, 100 + i);
    sinks.emplace_back(kBlocks, kBlockBytes, 0);
    ids.push_back(NextId());
  }
  for (int i = 0; i < kTransfers; i++) {
    Rank& from = *ranks[i % 3];
    Rank& to = *ranks[(i + 1 + i / 3 % 2) % 3];
    if (i % 2 == 0) Expect(to, ids[i], sinks[i]);
    SendAll(from, to, ids[i], sources[i], kBlocks, std::to_string(i));
    if (i % 2 == 1) Expect(to, ids[i], sinks[i]);
  }
  Until([&] {
    return ranks[0]->events() + ranks[1]->events() + ranks[2]->events() == 2 * kTransfers;
  });
  for (int i = 0; i < kTransfers; i++) {
    Rank& to = *ranks[(i + 1 + i / 3 % 2) % 3];
    EXPECT_EQ(to.EventOf(ids[i]).kind, TransferEventKind::kReceived) << to.EventOf(ids[i]).status;
    EXPECT_EQ(to.EventOf(ids[i]).manifest, std::to_string(i));
    EXPECT_TRUE(sinks[i] == sources[i]) << "transfer " << i;
  }
}

// Giving up.

enum class Stage { kNothing, kOffered, kExpected, kOpen, kUnclosed };

class KvTransferCancel : public KvTransferConformance {
 protected:
  void Reach(Stage stage, Rank& prefill, Rank& decode, TransferId id, BlockMemory& source,
             BlockMemory& sink) {
    if (stage == Stage::kExpected || stage >= Stage::kOpen) Expect(decode, id, sink);
    if (stage == Stage::kOffered || stage >= Stage::kOpen) {
      SendBlock(prefill, decode, id, source, 0);
    }
    if (stage == Stage::kUnclosed) {
      SendBlock(prefill, decode, id, source, 1);
      SendBlock(prefill, decode, id, source, 2);
    }
    UntilArrived(prefill, decode);
  }
  void CheckCancelled(Stage stage, bool by_sender) {
    SCOPED_TRACE(testing::Message() << "stage " << static_cast<int>(stage) << ", by "
                                    << (by_sender ? "sender" : "receiver"));
    Rank& prefill = NewRank();
    Rank& decode = NewRank();
    BlockMemory source(3, kBlockBytes, 11);
    BlockMemory sink(3, kBlockBytes, 0);
    const TransferId id = NextId();
    Reach(stage, prefill, decode, id, source, sink);
    (*(by_sender ? prefill : decode)).Cancel(id);
    UntilArrived(prefill, decode);
    // The other side joins only now, and learns at once.
    if (stage == Stage::kOffered && by_sender) Expect(decode, id, sink);
    if (stage == Stage::kExpected && !by_sender) SendBlock(prefill, decode, id, source, 0);
    UntilEnded(id, prefill, decode);
    ExpectFailed(prefill.EventOf(id), absl::StatusCode::kCancelled);
    ExpectFailed(decode.EventOf(id), absl::StatusCode::kCancelled);
  }
};

TEST_P(KvTransferCancel, BySenderBeforeExpect) { CheckCancelled(Stage::kOffered, true); }
TEST_P(KvTransferCancel, BySenderWhileBlocksCome) { CheckCancelled(Stage::kOpen, true); }
TEST_P(KvTransferCancel, BySenderBeforeTheClosingPart) { CheckCancelled(Stage::kUnclosed, true); }
TEST_P(KvTransferCancel, ByReceiverBeforeTheOffer) { CheckCancelled(Stage::kExpected, false); }
TEST_P(KvTransferCancel, ByReceiverWhileBlocksCome) { CheckCancelled(Stage::kOpen, false); }
TEST_P(KvTransferCancel, ByReceiverBeforeTheClosingPart) {
  CheckCancelled(Stage::kUnclosed, false);
}

TEST_P(KvTransferConformance, CancelOfUnknownAndOfEndedTransfersDoesNothing) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 12);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  decode->Cancel(id);
  Expect(decode, id, sink);
  SendAll(prefill, decode, id, source, 1);
  UntilEnded(id, prefill, decode);
  prefill->Cancel(id);
  decode->Cancel(id);
  UntilArrived(prefill, decode);
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_EQ(prefill.EventOf(id).kind, TransferEventKind::kHandedOver);
}

// Cancels at arbitrary moments of a busy transfer. Whatever happens, memory belongs to its owner
// again after the final event: what the owner then writes stays, and what it writes into the source
// never reaches a receiver that reports success.
TEST_P(KvTransferConformance, MemoryIsUntouchedAfterTheFinalEvent) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  constexpr std::uint32_t kBlocks = 12;
  for (int round = 0; round < 24; round++) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    BlockMemory source(kBlocks, kBlockBytes, 1000 + round);
    const BlockMemory original = source;
    BlockMemory sink(kBlocks, kBlockBytes, 0);
    const TransferId id = NextId();
    Expect(decode, id, sink);
    SendAll(prefill, decode, id, source, kBlocks);
    for (int i = 0; i < round / 2; i++) {
      prefill.Collect();
      decode.Collect();
    }
    (*(round % 2 == 0 ? prefill : decode)).Cancel(id);
    bool source_poisoned = false;
    bool sink_poisoned = false;
    Until([&] {
      if (prefill.Ended(id) && !source_poisoned) {
        source_poisoned = true;
        source.Fill(std::byte{0xEE});
      }
      if (decode.Ended(id) && !sink_poisoned) {
        sink_poisoned = true;
        if (decode.EventOf(id).kind == TransferEventKind::kReceived) {
          EXPECT_TRUE(sink == original);
        }
        sink.Fill(std::byte{0xDD});
      }
      return source_poisoned && sink_poisoned;
    });
    UntilArrived(prefill, decode);
    EXPECT_TRUE(sink.IsAll(std::byte{0xDD}));
    EXPECT_TRUE(source.IsAll(std::byte{0xEE}));
  }
}

TEST_P(KvTransferConformance, ReceiverThatShutsDownFailsItsSenders) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(3, kBlockBytes, 13);
  BlockMemory sink(3, kBlockBytes, 0);
  const TransferId id = NextId(), parked = NextId();
  Expect(decode, id, sink);
  SendBlock(prefill, decode, id, source, 0);
  SendBlock(prefill, decode, parked, source, 1);
  UntilArrived(prefill, decode);
  decode.Destroy();
  sink.Fill(std::byte{0xDD});
  Until([&] { return prefill.Ended(id) && prefill.Ended(parked); });
  EXPECT_EQ(prefill.EventOf(id).kind, TransferEventKind::kFailed);
  EXPECT_EQ(prefill.EventOf(parked).kind, TransferEventKind::kFailed);
  EXPECT_TRUE(sink.IsAll(std::byte{0xDD}));
}

TEST_P(KvTransferConformance, SenderThatShutsDownFailsItsReceivers) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(3, kBlockBytes, 14);
  BlockMemory sink(3, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  SendBlock(prefill, decode, id, source, 0);
  UntilArrived(prefill, decode);
  prefill.Destroy();
  Until([&] { return decode.Ended(id); });
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kFailed);
}

TEST_P(KvTransferConformance, SendToARankThatIsGoneFails) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  decode.Destroy();
  BlockMemory source(1, kBlockBytes, 15);
  const TransferId id = NextId();
  SendBlock(prefill, decode, id, source, 0);
  UntilFailed(prefill, id, absl::StatusCode::kUnavailable);
}

// Leases.

TEST_P(KvTransferConformance, LeaseEndsASenderWithoutAnswer) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 16);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  SendAll(prefill, decode, id, source, 1);
  UntilArrived(prefill, decode);
  clock_.Advance(Limits().lease);
  UntilFailed(prefill, id, absl::StatusCode::kDeadlineExceeded);
  // The receiver that comes too late is told at once.
  UntilArrived(prefill, decode);
  Expect(decode, id, sink);
  UntilFailed(decode, id, absl::StatusCode::kDeadlineExceeded);
}

TEST_P(KvTransferConformance, LeaseEndsAReceiverWithoutOffer) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 17);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  clock_.Advance(Limits().lease - absl::Milliseconds(1));
  UntilArrived(prefill, decode);
  EXPECT_FALSE(decode.Ended(id));
  clock_.Advance(absl::Milliseconds(1));
  UntilFailed(decode, id, absl::StatusCode::kDeadlineExceeded);
  SendBlock(prefill, decode, id, source, 0);
  UntilFailed(prefill, id, absl::StatusCode::kDeadlineExceeded);
}

// A lease was let pass while a block could still be on its way, and renew it: the test then waited
// for an end that did not come. Now each block is there before the clock moves on.
TEST_P(KvTransferConformance, ProgressRenewsTheLease) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(4, kBlockBytes, 18);
  BlockMemory sink(4, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  for (std::uint32_t number = 0; number < 4; number++) {
    SendBlock(prefill, decode, id, source, number);
    Until([&] { return std::ranges::equal(sink.Block(number), source.Block(number)); });
    UntilArrived(prefill, decode);
    clock_.Advance(Limits().lease * 0.7);
    UntilArrived(prefill, decode);
    ASSERT_FALSE(prefill.Ended(id) || decode.Ended(id));
  }
  UntilLeaseEnds(prefill, id);
  UntilFailed(decode, id, absl::StatusCode::kDeadlineExceeded);
  ExpectFailed(prefill.EventOf(id), absl::StatusCode::kDeadlineExceeded);
}

// Limits.

TEST_P(KvTransferConformance, TransfersAreLimited) {
  TransferLimits limits = Limits();
  limits.transfers_max = 3;
  Rank& prefill = NewRank(limits);
  Rank& decode = NewRank(limits);
  BlockMemory source(1, kBlockBytes, 19);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id_1 = NextId(), id_2 = NextId(), id_3 = NextId(), id_4 = NextId();
  Expect(prefill, id_1, sink);
  SendBlock(prefill, decode, id_2, source, 0);
  SendBlock(prefill, decode, id_3, source, 0);
  const SendPart too_many{.id = id_4, .peer_address = decode.address(), .block = source.Block(0)};
  EXPECT_EQ(prefill->Send(too_many).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(prefill->Expect(id_4, sink.Blocks()).code(), absl::StatusCode::kResourceExhausted);
  prefill->Cancel(id_1);
  Until([&] { return prefill.Ended(id_1); });
  BlockMemory other(1, kBlockBytes, 0);
  Expect(prefill, id_4, other);
}

TEST_P(KvTransferConformance, ParkedOffersAreLimited) {
  TransferLimits limits = Limits();
  limits.offers_parked_max = 2;
  Rank& prefill = NewRank();
  Rank& decode = NewRank(limits);
  BlockMemory source(1, kBlockBytes, 20);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id_1 = NextId(), id_2 = NextId(), id_3 = NextId();
  SendAll(prefill, decode, id_1, source, 1);
  SendAll(prefill, decode, id_2, source, 1);
  SendBlock(prefill, decode, id_3, source, 0);
  UntilFailed(prefill, id_3, absl::StatusCode::kResourceExhausted);
  Expect(decode, id_2, sink);
  UntilEnded(id_2, prefill, decode);
  EXPECT_EQ(decode.EventOf(id_2).kind, TransferEventKind::kReceived);
}

TEST_P(KvTransferConformance, BlocksOfAnotherSizeAreRefused) {
  TransferLimits other = Limits();
  other.block_bytes = kBlockBytes / 2;
  Rank& prefill = NewRank(other);
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes / 2, 21);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId expected = NextId(), parked = NextId();
  Expect(decode, expected, sink);
  SendBlock(prefill, decode, expected, source, 0);
  SendBlock(prefill, decode, parked, source, 0);
  UntilEnded(expected, prefill, decode);
  Until([&] { return prefill.Ended(parked); });
  ExpectFailed(prefill.EventOf(expected), absl::StatusCode::kFailedPrecondition);
  ExpectFailed(decode.EventOf(expected), absl::StatusCode::kFailedPrecondition);
  ExpectFailed(prefill.EventOf(parked), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(sink.IsAll(std::byte{0}));
}

TEST_P(KvTransferConformance, MoreBlocksThanReservedFail) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(3, kBlockBytes, 22);
  BlockMemory sink(2, kBlockBytes, 0);
  const TransferId early = NextId(), late = NextId(), total = NextId();
  SendAll(prefill, decode, early, source, 3);
  Expect(decode, early, sink);
  UntilEnded(early, prefill, decode);
  Expect(decode, late, sink);
  SendBlock(prefill, decode, late, source, 0);
  UntilArrived(prefill, decode);
  SendBlock(prefill, decode, late, source, 2);
  UntilEnded(late, prefill, decode);
  Expect(decode, total, sink);
  SendClosing(prefill, decode, total, 3);
  SendBlock(prefill, decode, total, source, 0);
  SendBlock(prefill, decode, total, source, 1);
  SendBlock(prefill, decode, total, source, 2);
  UntilEnded(total, prefill, decode);
  for (const TransferId id : {early, late, total}) {
    ExpectFailed(prefill.EventOf(id), absl::StatusCode::kFailedPrecondition);
    ExpectFailed(decode.EventOf(id), absl::StatusCode::kFailedPrecondition);
  }
}

TEST_P(KvTransferConformance, IdsAreUsedOnce) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(1, kBlockBytes, 23);
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  Expect(decode, id, sink);
  EXPECT_EQ(decode->Expect(id, sink.Blocks()).code(), absl::StatusCode::kAlreadyExists);
  SendAll(prefill, decode, id, source, 1);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode->Expect(id, sink.Blocks()).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(
      prefill->Send({.id = id, .peer_address = decode.address(), .block = source.Block(0)}).code(),
      absl::StatusCode::kFailedPrecondition);
}

TEST_P(KvTransferConformance, InvalidExpectationsStartNothing) {
  Rank& decode = NewRank();
  BlockMemory sink(1, kBlockBytes, 0);
  const TransferId id = NextId();
  const std::vector<std::vector<std::span<std::byte>>> cases = {
      {},
      {sink.Block(0).first(kBlockBytes - 1)},
      {sink.Block(0), sink.Block(0).first(1)},
      std::vector<std::span<std::byte>>(kTransferBlocksMax + 1, sink.Block(0)),
  };
  for (const auto& blocks : cases) {
    EXPECT_EQ(decode->Expect(id, blocks).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(decode->Expect({0}, sink.Blocks()).code(), absl::StatusCode::kInvalidArgument);
  Expect(decode, id, sink);
}

TEST_P(KvTransferConformance, InvalidPartsAreIgnored) {
  Rank& prefill = NewRank();
  Rank& decode = NewRank();
  BlockMemory source(3, kBlockBytes, 24);
  BlockMemory sink(3, kBlockBytes, 0);
  const TransferId id = NextId(), unused = NextId();
  const std::string& to = decode.address();
  const auto check = [&](SendPart part) {
    EXPECT_EQ(prefill->Send(std::move(part)).code(), absl::StatusCode::kInvalidArgument);
  };
  check({.id = {0}, .peer_address = to, .block = source.Block(0)});
  check({.id = unused, .peer_address = "", .block = source.Block(0)});
  check({.id = unused,
         .peer_address = std::string(contract::kDataPlaneAddressBytesMax + 1, 'x'),
         .block = source.Block(0)});
  check({.id = unused, .peer_address = to, .block = source.Block(0).first(kBlockBytes - 1)});
  check({.id = unused,
         .peer_address = to,
         .block_number = kTransferBlocksMax,
         .block = source.Block(0)});
  check({.id = unused, .peer_address = to, .last = true, .blocks_total = 0});
  check({.id = unused, .peer_address = to, .last = true, .blocks_total = kTransferBlocksMax + 1});
  check({.id = unused,
         .peer_address = to,
         .block = source.Block(0),
         .last = true,
         .blocks_total = 1});
  check({.id = unused,
         .peer_address = to,
         .last = true,
         .blocks_total = 1,
         .manifest = std::string(Limits().manifest_bytes_max + 1, 'm')});
  Expect(decode, id, sink);
  SendBlock(prefill, decode, id, source, 1);
  check({.id = id, .peer_address = to, .block_number = 1, .block = source.Block(1)});
  check({.id = id, .peer_address = to + "x", .block_number = 0, .block = source.Block(0)});
  check({.id = id, .peer_address = to, .last = true, .blocks_total = 1});
  SendClosing(prefill, decode, id, 3);
  check({.id = id, .peer_address = to, .last = true, .blocks_total = 3});
  check({.id = id, .peer_address = to, .block_number = 3, .block = source.Block(0)});
  SendBlock(prefill, decode, id, source, 0);
  SendBlock(prefill, decode, id, source, 2);
  UntilEnded(id, prefill, decode);
  EXPECT_EQ(decode.EventOf(id).kind, TransferEventKind::kReceived);
  EXPECT_TRUE(sink == source);
}

INSTANTIATE_TEST_SUITE_P(On, KvTransferConformance, testing::ValuesIn(Fabrics()), FabricName);
INSTANTIATE_TEST_SUITE_P(On, KvTransferCancel, testing::ValuesIn(Fabrics()), FabricName);

}  // namespace
}  // namespace baleen::worker
