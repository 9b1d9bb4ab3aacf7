// What dispatch does, event by event, on a manual clock with in-memory links and sinks.
#include "router/dispatch/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kRouter = 42;

class DispatcherTest : public ::testing::Test {
 protected:
  struct SubmitSpec {
    std::uint32_t prompt_tokens = 10;
    std::uint32_t tokens_max = 5;
    absl::Duration wait = absl::InfiniteDuration();
    std::string tenant;
    std::uint32_t priority = contract::kPriorityDefault;
  };

  MemoryLink& Attach(std::uint64_t worker, Role role, std::uint32_t sequences_max = 16) {
    WorkerInfo info =
        MakeWorkerInfo(std::string(ToString(role)) + "-" + std::to_string(worker), role);
    info.sequences_max = sequences_max;
    MemoryLink& link = links_[worker];
    dispatcher_.OnAttached({worker}, std::make_shared<const WorkerInfo>(info), link);
    // The lower its number the less a rank has to do, so that no draw decides between equals.
    dispatcher_.OnLoad(
        {worker}, {.prompt_tokens_pending = 100 * worker, .context_tokens_held = 6400 * worker});
    return link;
  }

  // Returns the request's number.
  std::uint64_t Submit() { return Submit(SubmitSpec()); }
  std::uint64_t Submit(const SubmitSpec& spec) {
    dispatcher_.Submit({.id = {kRouter, ++submitted_},
                        .model = "nano",
                        .prompt = std::make_shared<const TokenIds>(spec.prompt_tokens, 7),
                        .tokens_max = spec.tokens_max,
                        .tenant = spec.tenant,
                        .priority = spec.priority,
                        .deadline = clock_.Monotonic() + spec.wait,
                        .sink = &sink_});
    return submitted_;
  }
  // A prompt of 200 tokens whose blocks have these names.
  void SubmitHashes(std::shared_ptr<const BlockHashes> hashes) {
    dispatcher_.Submit({.id = {kRouter, ++submitted_},
                        .model = "nano",
                        .prompt = std::make_shared<const TokenIds>(200, 7),
                        .tokens_max = 5,
                        .block_hashes = std::move(hashes),
                        .sink = &sink_});
  }

  static contract::RequestKey Key(std::uint64_t number, std::uint32_t attempt = 1) {
    return {{kRouter, number}, attempt};
  }

  void Token(std::uint64_t worker, contract::RequestKey key, std::uint32_t sequence) {
    dispatcher_.OnTokens({worker}, {{.key = key,
                                     .sequence = sequence,
                                     .token = {.id = static_cast<std::int32_t>(sequence) + 100}}});
  }

  void Ended(std::uint64_t worker, contract::RequestKey key, EndReason reason, std::uint32_t tokens,
             absl::Status status = absl::OkStatus()) {
    dispatcher_.OnEnded({worker}, {.key = key,
                                   .reason = reason,
                                   .tokens = tokens,
                                   .status = std::move(status),
                                   .kv_transfer_bytes = 640});
  }

  const Ending& EndingOf(std::uint64_t number) {
    static const Ending kNone{.status = absl::UnknownError("it has not ended")};
    const auto it = sink_.endings.find(number);
    EXPECT_NE(it, sink_.endings.end()) << "request " << number << " has not ended";
    return it == sink_.endings.end() ? kNone : it->second;
  }
  std::optional<Reason> ReasonOf(std::uint64_t number) {
    return contract::ReasonOf(EndingOf(number).status);
  }

  // Nothing of any request is left anywhere.
  void ExpectQuiet() {
    const DispatchCounts counts = dispatcher_.counts();
    EXPECT_EQ(counts.running, 0u);
    EXPECT_EQ(counts.waiting, 0u);
    EXPECT_EQ(counts.closing, 0u);
    for (const WorkerView& worker : dispatcher_.view().workers) EXPECT_EQ(worker.own, Work{});
  }

  ManualClock clock_;
  std::uint64_t drawn_ = 1000;
  MemorySink sink_;
  std::map<std::uint64_t, MemoryLink> links_;
  Dispatcher dispatcher_{{}, clock_, [this] { return ++drawn_; }};
  std::uint64_t submitted_ = 0;
};

TEST_F(DispatcherTest, SplitRequestFromStartToEnd) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  MemoryLink& decode = Attach(2, Role::kDecode);
  Submit({.wait = absl::Seconds(3)});

  ASSERT_EQ(prefill.All<StartFrame>().size(), 1u);
  ASSERT_EQ(decode.All<StartFrame>().size(), 1u);
  const StartFrame p = prefill.All<StartFrame>()[0];
  const StartFrame d = decode.All<StartFrame>()[0];
  EXPECT_EQ(p.leg, Leg::kPrefill);
  EXPECT_EQ(d.leg, Leg::kDecode);
  EXPECT_EQ(p.key, Key(1));
  EXPECT_EQ(d.key, Key(1));
  EXPECT_EQ(p.transfer, d.transfer);
  EXPECT_EQ(p.transfer.value, 1001u);
  EXPECT_EQ(p.peer_address, "at decode-2");
  EXPECT_EQ(d.peer_address, "");
  EXPECT_EQ(*p.prompt, TokenIds(10, 7));
  EXPECT_EQ(*d.prompt, TokenIds(10, 7));
  EXPECT_EQ(p.time_left, absl::Seconds(3));
  EXPECT_EQ(d.tokens_max, 5u);

  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kHandedOver, 1);
  for (std::uint32_t i = 1; i < 4; ++i) Token(2, Key(1), i);
  EXPECT_THAT(sink_.Ids(1), ElementsAre(100, 101, 102, 103)) << "delivered as they come";
  EXPECT_THAT(sink_.endings, IsEmpty());
  Ended(2, Key(1), EndReason::kStop, 3);

  const Ending& ending = EndingOf(1);
  EXPECT_TRUE(ending.status.ok()) << ending.status;
  EXPECT_EQ(ending.finish, FinishReason::kStop);
  EXPECT_EQ(ending.tokens, 4u);
  EXPECT_EQ(ending.prefill_worker, "prefill-1");
  EXPECT_EQ(ending.decode_worker, "decode-2");
  EXPECT_EQ(ending.kv_transfer_bytes, 640u);
  ExpectQuiet();
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 0u);
}

TEST_F(DispatcherTest, WholeRequestOnAMixedWorker) {
  MemoryLink& link = Attach(1, Role::kMixed);
  Submit({.tokens_max = 2});
  ASSERT_EQ(link.All<StartFrame>().size(), 1u);
  EXPECT_EQ(link.All<StartFrame>()[0].leg, Leg::kWhole);
  EXPECT_EQ(link.All<StartFrame>()[0].transfer.value, 0u);
  EXPECT_EQ(link.All<StartFrame>()[0].time_left, absl::InfiniteDuration());
  Token(1, Key(1), 0);
  Token(1, Key(1), 1);
  Ended(1, Key(1), EndReason::kLength, 2);
  EXPECT_EQ(EndingOf(1).finish, FinishReason::kLength);
  EXPECT_EQ(EndingOf(1).prefill_worker, EndingOf(1).decode_worker);
  ExpectQuiet();
}

TEST_F(DispatcherTest, DecodeMayOvertakePrefill) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Submit();
  Token(2, Key(1), 1);
  Token(2, Key(1), 2);
  Ended(2, Key(1), EndReason::kStop, 2);
  EXPECT_THAT(sink_.Ids(1), IsEmpty());
  EXPECT_THAT(sink_.endings, IsEmpty());
  Token(1, Key(1), 0);
  EXPECT_THAT(sink_.Ids(1), ElementsAre(100, 101, 102));
  EXPECT_TRUE(EndingOf(1).status.ok());
  EXPECT_EQ(dispatcher_.counts().closing, 1u) << "the prefill rank still says goodbye";
  Ended(1, Key(1), EndReason::kHandedOver, 1);
  ExpectQuiet();
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 0u);
}

TEST_F(DispatcherTest, AReplyOfOneTokenReleasesTheReservation) {
  Attach(1, Role::kPrefill);
  MemoryLink& decode = Attach(2, Role::kDecode);
  Submit();
  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kStop, 1);
  EXPECT_TRUE(EndingOf(1).status.ok());
  ASSERT_EQ(decode.All<ReleaseFrame>().size(), 1u);
  EXPECT_EQ(decode.All<ReleaseFrame>()[0].key, Key(1));
  Ended(2, Key(1), EndReason::kCancelled, 0);
  ExpectQuiet();
}

TEST_F(DispatcherTest, NoDecodeWorkerFailsAtOnce) {
  Attach(1, Role::kPrefill);
  Submit();
  EXPECT_EQ(ReasonOf(1), Reason::kNoWorker);
  EXPECT_THAT(std::string(EndingOf(1).status.message()), HasSubstr("decode"));
  EXPECT_EQ(EndingOf(1).prefill_worker, "");
  ExpectQuiet();
}

TEST_F(DispatcherTest, CancelReachesBothRanksAndEndsAtOnce) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  MemoryLink& decode = Attach(2, Role::kDecode);
  Submit();
  Token(1, Key(1), 0);
  dispatcher_.Cancel({kRouter, 1});
  EXPECT_EQ(ReasonOf(1), Reason::kCancelled);
  EXPECT_EQ(EndingOf(1).tokens, 1u);
  EXPECT_EQ(prefill.All<CancelFrame>().size(), 1u);
  EXPECT_EQ(decode.All<CancelFrame>().size(), 1u);

  Token(2, Key(1), 1);  // was on its way
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 1u);
  dispatcher_.Cancel({kRouter, 1});
  Ended(1, Key(1), EndReason::kCancelled, 1);
  Ended(2, Key(1), EndReason::kCancelled, 1);
  ExpectQuiet();
  EXPECT_EQ(prefill.All<CancelFrame>().size(), 1u) << "once";
}

TEST_F(DispatcherTest, OnlyOpenLegsAreCancelled) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  MemoryLink& decode = Attach(2, Role::kDecode);
  Submit();
  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kHandedOver, 1);
  dispatcher_.Cancel({kRouter, 1});
  EXPECT_THAT(prefill.All<CancelFrame>(), IsEmpty());
  EXPECT_EQ(decode.All<CancelFrame>().size(), 1u);
}

TEST_F(DispatcherTest, OtherRoutersAndUnknownRequestsAreStale) {
  Attach(1, Role::kMixed);
  Submit();
  Token(1, {{kRouter + 1, 1}, 1}, 0);
  Token(1, Key(9), 0);
  Token(1, Key(1, 2), 0);
  Token(1, Key(1, 0), 0);
  Ended(1, Key(9), EndReason::kStop, 1);
  Token(5, Key(1), 0);
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 6u);
  EXPECT_THAT(sink_.Ids(1), IsEmpty());
  dispatcher_.Cancel({kRouter + 1, 1});
  EXPECT_THAT(sink_.endings, IsEmpty());
}

TEST_F(DispatcherTest, DuplicatesAreDroppedAndCounted) {
  Attach(1, Role::kMixed);
  Submit();
  Token(1, Key(1), 0);
  Token(1, Key(1), 0);
  Token(1, Key(1), 1);
  EXPECT_THAT(sink_.Ids(1), ElementsAre(100, 101));
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 1u);
}

TEST_F(DispatcherTest, LostWorkerMidStreamEndsTheRequestWithAReason) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Attach(3, Role::kDecode);
  Submit();
  Token(1, Key(1), 0);
  Token(2, Key(1), 1);
  dispatcher_.OnLost({2}, "its stream has ended");
  EXPECT_EQ(ReasonOf(1), Reason::kWorkerLost);
  EXPECT_EQ(EndingOf(1).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(EndingOf(1).status.message()),
              HasSubstr("worker decode-2: its stream has ended"));
  EXPECT_EQ(EndingOf(1).tokens, 2u);
  EXPECT_EQ(prefill.All<CancelFrame>().size(), 1u);
  Ended(1, Key(1), EndReason::kCancelled, 1);
  ExpectQuiet();
}

TEST_F(DispatcherTest, LostBeforeTheFirstTokenIsTriedElsewhere) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  MemoryLink& other = Attach(3, Role::kDecode);
  Submit();
  Token(2, Key(1), 1);  // early, and forgotten with the attempt
  dispatcher_.OnLost({2}, "gone");
  EXPECT_THAT(sink_.endings, IsEmpty());
  ASSERT_EQ(other.All<StartFrame>().size(), 1u);
  EXPECT_EQ(other.All<StartFrame>()[0].key, Key(1, 2));
  ASSERT_EQ(prefill.All<StartFrame>().size(), 2u);
  EXPECT_EQ(prefill.All<StartFrame>()[1].key, Key(1, 2));
  EXPECT_EQ(prefill.All<StartFrame>()[1].peer_address, "at decode-3");
  EXPECT_NE(prefill.All<StartFrame>()[1].transfer, prefill.All<StartFrame>()[0].transfer);
  EXPECT_EQ(prefill.All<CancelFrame>().at(0).key, Key(1, 1));

  Token(1, Key(1, 1), 0);  // of the old attempt
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 1u);
  Ended(1, Key(1, 1), EndReason::kCancelled, 1);
  Token(1, Key(1, 2), 0);
  Token(3, Key(1, 2), 1);
  Ended(1, Key(1, 2), EndReason::kHandedOver, 1);
  Ended(3, Key(1, 2), EndReason::kStop, 1);
  EXPECT_THAT(sink_.Ids(1), ElementsAre(100, 101));
  EXPECT_TRUE(EndingOf(1).status.ok());
  EXPECT_EQ(EndingOf(1).decode_worker, "decode-3");
  ExpectQuiet();
}

TEST_F(DispatcherTest, ASecondFailureEndsTheRequest) {
  Attach(1, Role::kMixed);
  Attach(2, Role::kMixed);
  Attach(3, Role::kMixed);
  Submit();
  dispatcher_.OnLost({1}, "gone");
  dispatcher_.OnLost({2}, "gone too");
  EXPECT_EQ(ReasonOf(1), Reason::kWorkerLost);
  EXPECT_THAT(std::string(EndingOf(1).status.message()), HasSubstr("worker mixed-2: gone too"));
  ExpectQuiet();
}

TEST_F(DispatcherTest, WithoutAnotherWorkerTheFirstFailureIsTold) {
  Attach(1, Role::kMixed);
  Submit();
  Ended(1, Key(1), EndReason::kError, 0, contract::MakeStatus(Reason::kQueueFull, "256 wait"));
  EXPECT_EQ(ReasonOf(1), Reason::kQueueFull);
  EXPECT_THAT(std::string(EndingOf(1).status.message()), HasSubstr("worker mixed-1: 256 wait"));
  ExpectQuiet();
}

TEST_F(DispatcherTest, AFailedTransferChangesTheDecodeRankWhoeverReportsIt) {
  Attach(1, Role::kPrefill);
  MemoryLink& first = Attach(2, Role::kDecode);
  MemoryLink& second = Attach(3, Role::kDecode);
  Submit();
  Ended(1, Key(1), EndReason::kError, 0, contract::MakeStatus(Reason::kTransferFailed, "lost"));
  EXPECT_EQ(first.All<CancelFrame>().size(), 1u);
  EXPECT_EQ(second.All<StartFrame>().size(), 1u);
}

TEST_F(DispatcherTest, NumericFaultsAreNotTriedAgain) {
  Attach(1, Role::kMixed);
  Attach(2, Role::kMixed);
  Submit();
  Ended(1, Key(1), EndReason::kError, 0, contract::MakeStatus(Reason::kNumericFault, "NaN"));
  EXPECT_EQ(ReasonOf(1), Reason::kNumericFault);
}

TEST_F(DispatcherTest, ThePrefillRankMayGoOnceTheDecodeRankHasSpoken) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Submit();
  Token(1, Key(1), 0);
  Token(2, Key(1), 1);
  dispatcher_.OnLost({1}, "gone");
  EXPECT_THAT(sink_.endings, IsEmpty());
  Token(2, Key(1), 2);
  Ended(2, Key(1), EndReason::kStop, 2);
  EXPECT_TRUE(EndingOf(1).status.ok());
  EXPECT_EQ(EndingOf(1).prefill_worker, "prefill-1");
  ExpectQuiet();
}

// The frame that tells the prefill rank that its blocks may go can get lost with its connection:
// the rank's error then came seconds later and ended a healthy reply.
TEST_F(DispatcherTest, ThePrefillRankMayFailOnceTheDecodeRankHasSpoken) {
  for (const EndReason late : {EndReason::kError, EndReason::kCancelled}) {
    links_.clear();
    dispatcher_.OnLost({1 + 2 * submitted_}, "next round");
    dispatcher_.OnLost({2 + 2 * submitted_}, "next round");
    const std::uint64_t prefill = 1 + 2 * (submitted_ + 1);
    const std::uint64_t decode = prefill + 1;
    Attach(prefill, Role::kPrefill);
    Attach(decode, Role::kDecode);
    const std::uint64_t number = Submit();
    Token(prefill, Key(number), 0);
    Token(decode, Key(number), 1);
    Ended(prefill, Key(number), late, 1,
          late == EndReason::kError ? contract::MakeStatus(Reason::kTransferFailed, "lease")
                                    : absl::OkStatus());
    EXPECT_THAT(sink_.endings, testing::SizeIs(number - 1)) << "the decode rank needs it no more";
    Token(decode, Key(number), 2);
    Ended(decode, Key(number), EndReason::kStop, 2);
    EXPECT_TRUE(EndingOf(number).status.ok()) << EndingOf(number).status;
    EXPECT_EQ(EndingOf(number).tokens, 3u);
    ExpectQuiet();
  }
}

// The prefill rank withdraws a transfer that is under way when the reply ends with its first token;
// the decode rank's word of it sometimes came first, and failed a request that was answered.
TEST_F(DispatcherTest, AFailedTransferWaitsForThePrefillRanksWord) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  MemoryLink& other = Attach(3, Role::kDecode);
  const auto fail = [this](std::uint64_t number) {
    Ended(2, Key(number), EndReason::kError, 0,
          contract::MakeStatus(Reason::kTransferFailed, "the sender gave up"));
  };
  fail(Submit());
  EXPECT_THAT(sink_.endings, IsEmpty());
  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kStop, 1);
  EXPECT_TRUE(EndingOf(1).status.ok()) << EndingOf(1).status;

  Submit();  // also between the prefill rank's token and its end, and when the reservation gave up
  Token(1, Key(2), 0);
  Ended(2, Key(2), EndReason::kCancelled, 0);
  EXPECT_FALSE(sink_.endings.contains(2));
  Ended(1, Key(2), EndReason::kLength, 1);
  EXPECT_TRUE(EndingOf(2).status.ok()) << EndingOf(2).status;

  fail(Submit());  // handed over to nobody
  Token(1, Key(3), 0);
  Ended(1, Key(3), EndReason::kHandedOver, 1);
  EXPECT_EQ(ReasonOf(3), Reason::kTransferFailed);

  fail(Submit());  // the prefill rank says at once that the transfer failed: on to another one
  Ended(1, Key(4), EndReason::kError, 0, contract::MakeStatus(Reason::kTransferFailed, "lost"));
  ASSERT_EQ(other.All<StartFrame>().size(), 1u);
  EXPECT_EQ(other.All<StartFrame>()[0].key, Key(4, 2));
  EXPECT_EQ(prefill.All<StartFrame>().back().key, Key(4, 2));
  dispatcher_.Cancel({kRouter, 4});
  Ended(1, Key(4, 2), EndReason::kCancelled, 0);
  Ended(3, Key(4, 2), EndReason::kCancelled, 0);
  ExpectQuiet();
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 0u);
}

TEST_F(DispatcherTest, ThePrefillRanksWordIsNotAwaitedForEver) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  MemoryLink& other = Attach(3, Role::kDecode);
  Submit();
  Ended(2, Key(1), EndReason::kError, 0, contract::MakeStatus(Reason::kTransferFailed, "lease"));
  clock_.Advance(absl::Milliseconds(2999));
  dispatcher_.Tick();
  EXPECT_THAT(other.frames, IsEmpty());
  clock_.Advance(absl::Milliseconds(1));
  dispatcher_.Tick();
  ASSERT_EQ(other.All<StartFrame>().size(), 1u);
  EXPECT_EQ(other.All<StartFrame>()[0].key, Key(1, 2));
  Ended(3, Key(1, 2), EndReason::kError, 0, contract::MakeStatus(Reason::kTransferFailed, "again"));
  dispatcher_.OnLost({1}, "gone");
  EXPECT_EQ(ReasonOf(1), Reason::kWorkerLost) << "the prefill rank's end is its word too";
  ExpectQuiet();
}

std::shared_ptr<const BlockHashes> SomeHashes(std::size_t count, std::uint8_t first) {
  BlockHashes hashes(count);
  for (std::size_t i = 0; i < count; ++i) {
    hashes[i].bytes[0] = first;
    hashes[i].bytes[1] = static_cast<std::uint8_t>(i);
  }
  return std::make_shared<const BlockHashes>(hashes);
}

TEST_F(DispatcherTest, APromptGoesWhereItsBlocksAre) {
  MemoryLink& idle = Attach(1, Role::kMixed);
  MemoryLink& holder = Attach(2, Role::kMixed);
  const auto hashes = SomeHashes(3, 'a');
  dispatcher_.OnCacheEvents({2}, {.stored = *hashes});
  SubmitHashes(hashes);
  ASSERT_EQ(holder.All<StartFrame>().size(), 1u);
  EXPECT_EQ(holder.All<StartFrame>()[0].block_hashes, hashes);
  EXPECT_EQ(dispatcher_.view().workers[1].own.prompt_tokens, 200u - 192u) << "only what is new";

  dispatcher_.OnCacheEvents({2}, {.evicted = {(*hashes)[0]}});
  clock_.Advance(absl::Seconds(5));
  SubmitHashes(hashes);
  EXPECT_EQ(idle.All<StartFrame>().size(), 1u) << "without its beginning the rest is of no use";
  dispatcher_.OnCacheEvents({7}, {.stored = *hashes});  // nobody
}

TEST_F(DispatcherTest, PromptsThatComeTogetherGoToOneRank) {
  MemoryLink& first = Attach(1, Role::kMixed);
  MemoryLink& second = Attach(2, Role::kMixed);
  for (std::uint64_t worker : {1, 2}) {
    dispatcher_.OnCacheEvents({worker}, {.stored = *SomeHashes(1, 'x')});
  }
  SubmitHashes(SomeHashes(3, 'a'));
  SubmitHashes(SomeHashes(3, 'a'));
  EXPECT_EQ(first.All<StartFrame>().size(), 2u) << "it computes these blocks already";
  SubmitHashes(SomeHashes(3, 'b'));
  EXPECT_EQ(second.All<StartFrame>().size(), 1u);
}

TEST_F(DispatcherTest, TheTenantThatWasServedLessIsNext) {
  MemoryLink& link = Attach(1, Role::kMixed, 1);
  for (const char* tenant : {"many", "many", "many", "few"}) Submit({.tenant = tenant});
  EXPECT_EQ(link.All<StartFrame>().size(), 1u);
  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kStop, 1);
  EXPECT_EQ(link.All<StartFrame>().back().key, Key(4)) << "the other one has had a token";
  Submit({.tenant = "few", .priority = 6});
  Ended(1, Key(4), EndReason::kError, 0, absl::InternalError("x"));
  EXPECT_EQ(link.All<StartFrame>().back().key, Key(5)) << "a higher band goes first";
}

TEST_F(DispatcherTest, WhenMemoryIsShortTheYoungestOfTheLowestPriorityGo) {
  Attach(1, Role::kMixed);
  for (const std::uint32_t priority : {5, 1, 1, 9}) Submit({.priority = priority});
  const absl::Status why = contract::MakeStatus(Reason::kQueueFull, "short of memory");
  EXPECT_EQ(dispatcher_.CancelLowest(1, why), 1u);
  EXPECT_EQ(ReasonOf(3), Reason::kQueueFull);
  EXPECT_EQ(dispatcher_.CancelLowest(2, why), 2u);
  EXPECT_EQ(ReasonOf(2), Reason::kQueueFull);
  EXPECT_EQ(ReasonOf(1), Reason::kQueueFull);
  EXPECT_FALSE(sink_.endings.contains(4));
  EXPECT_EQ(dispatcher_.CancelLowest(9, why), 1u);
}

// The queue was ordered by request number, which is drawn before a client comes.
TEST_F(DispatcherTest, TheQueueIsInTheOrderOfSubmission) {
  MemoryLink& link = Attach(1, Role::kMixed, 1);
  for (const std::uint64_t number : {9, 7, 8, 3}) {
    submitted_ = number - 1;
    Submit();
    clock_.Advance(absl::Seconds(10));
  }
  EXPECT_EQ(dispatcher_.counts().waiting, 3u);
  dispatcher_.Tick();
  EXPECT_THAT(sink_.endings, testing::ElementsAre(testing::Key(7)))
      << "30 s are over for the first that waits, whatever the numbers of the others";
  EXPECT_EQ(ReasonOf(7), Reason::kQueueFull);
  Token(1, Key(9), 0);
  Ended(1, Key(9), EndReason::kStop, 1);
  EXPECT_EQ(link.All<StartFrame>().back().key, Key(8));
}

TEST_F(DispatcherTest, WaitsForRoomFirstComeFirstServed) {
  MemoryLink& link = Attach(1, Role::kMixed, 1);
  Submit();
  Submit();
  Submit();
  EXPECT_EQ(dispatcher_.counts().running, 1u);
  EXPECT_EQ(dispatcher_.counts().waiting, 2u);
  Token(1, Key(1), 0);
  Ended(1, Key(1), EndReason::kStop, 1);
  ASSERT_EQ(link.All<StartFrame>().size(), 2u);
  EXPECT_EQ(link.All<StartFrame>()[1].key, Key(2));
  dispatcher_.Cancel({kRouter, 2});
  EXPECT_EQ(link.All<StartFrame>().size(), 2u) << "until the worker says that it has let go";
  Ended(1, Key(2), EndReason::kCancelled, 0);
  EXPECT_EQ(link.All<StartFrame>()[2].key, Key(3));
}

TEST_F(DispatcherTest, ASuspectWorkerTakesNothingUntilItSpeaks) {
  MemoryLink& link = Attach(1, Role::kMixed);
  dispatcher_.OnSuspect({1}, true);
  Submit();
  EXPECT_THAT(link.frames, IsEmpty());
  dispatcher_.OnSuspect({1}, false);
  EXPECT_EQ(link.All<StartFrame>().size(), 1u);
}

TEST_F(DispatcherTest, WaitingEndsWhenTheLastWorkerGoes) {
  Attach(1, Role::kMixed, 1);
  Submit();
  Submit();
  dispatcher_.OnLost({1}, "gone");
  EXPECT_EQ(ReasonOf(1), Reason::kWorkerLost);
  EXPECT_EQ(ReasonOf(2), Reason::kNoWorker);
}

TEST_F(DispatcherTest, WaitingIsBounded) {
  Attach(1, Role::kMixed, 1);
  Submit();
  Submit();
  clock_.Advance(absl::Seconds(29));
  Submit();
  dispatcher_.Tick();
  EXPECT_THAT(sink_.endings, IsEmpty());
  clock_.Advance(absl::Seconds(1));
  dispatcher_.Tick();
  EXPECT_EQ(ReasonOf(2), Reason::kQueueFull);
  EXPECT_THAT(std::string(EndingOf(2).status.message()), HasSubstr("within 30s"));
  EXPECT_EQ(dispatcher_.counts().running, 1u);
  EXPECT_EQ(dispatcher_.counts().waiting, 1u);
}

TEST_F(DispatcherTest, DeadlinesEndRunningAndWaitingRequests) {
  MemoryLink& link = Attach(1, Role::kMixed, 1);
  Submit({.wait = absl::Seconds(2)});
  Submit({.wait = absl::Seconds(1)});
  clock_.Advance(absl::Milliseconds(1500));
  dispatcher_.Tick();
  EXPECT_EQ(ReasonOf(2), Reason::kDeadlineExceeded);
  EXPECT_THAT(link.All<CancelFrame>(), IsEmpty());
  clock_.Advance(absl::Milliseconds(500));
  dispatcher_.Tick();
  EXPECT_EQ(ReasonOf(1), Reason::kDeadlineExceeded);
  EXPECT_EQ(link.All<CancelFrame>().size(), 1u);
}

TEST_F(DispatcherTest, AWorkerThatNeverEndsALegIsNotWaitedForForEver) {
  MemoryLink& link = Attach(1, Role::kMixed);
  Submit();
  dispatcher_.Cancel({kRouter, 1});
  EXPECT_EQ(dispatcher_.counts().closing, 1u);
  clock_.Advance(absl::Seconds(10));
  dispatcher_.Tick();
  EXPECT_EQ(link.All<ReleaseFrame>().size(), 1u);
  ExpectQuiet();
  Ended(1, Key(1), EndReason::kCancelled, 0);
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 1u);
}

// Nothing else may happen for a long time: those who wait must start when Tick makes room.
TEST_F(DispatcherTest, TickStartsWhatItMadeRoomFor) {
  MemoryLink& link = Attach(1, Role::kMixed, 1);
  Submit();
  dispatcher_.Cancel({kRouter, 1});
  Submit();
  EXPECT_EQ(dispatcher_.counts().waiting, 1u);
  clock_.Advance(absl::Seconds(10));
  dispatcher_.Tick();  // the worker never ended the first one
  EXPECT_EQ(link.All<StartFrame>().back().key, Key(2));
  Token(1, Key(2), 0);
  Ended(1, Key(2), EndReason::kStop, 1);

  MemoryLink& large = Attach(2, Role::kMixed);
  dispatcher_.OnLost({1}, "gone");
  Submit({.prompt_tokens = 30'000});
  Submit({.prompt_tokens = 40'000, .wait = absl::Seconds(1)});  // does not fit beside it
  Submit();
  EXPECT_EQ(dispatcher_.counts().waiting, 2u);
  clock_.Advance(absl::Seconds(1));
  dispatcher_.Tick();
  EXPECT_EQ(ReasonOf(4), Reason::kDeadlineExceeded);
  EXPECT_EQ(large.All<StartFrame>().back().key, Key(5)) << "nobody is before it any more";
}

TEST_F(DispatcherTest, ASinkWithoutRoomEndsItsRequestOnly) {
  MemoryLink& link = Attach(1, Role::kMixed);
  Submit();
  Submit();
  sink_.room = 1;
  dispatcher_.OnTokens({1}, {{.key = Key(1), .sequence = 0, .token = {.id = 5}},
                             {.key = Key(1), .sequence = 1, .token = {.id = 6}}});
  EXPECT_EQ(ReasonOf(1), Reason::kCancelled);
  EXPECT_EQ(EndingOf(1).tokens, 1u);
  EXPECT_EQ(link.All<CancelFrame>().size(), 1u);
  EXPECT_FALSE(sink_.endings.contains(2));
}

TEST_F(DispatcherTest, EndAllEndsWhatIsThereAndWhatComes) {
  Attach(1, Role::kMixed, 1);
  Submit();
  Submit();
  dispatcher_.EndAll(contract::MakeStatus(Reason::kDraining, "bye"));
  EXPECT_EQ(ReasonOf(1), Reason::kDraining);
  EXPECT_EQ(ReasonOf(2), Reason::kDraining);
  Submit();
  EXPECT_EQ(ReasonOf(3), Reason::kDraining);
}

// A worker that breaks the protocol fails its request with kInternal rather than with a wrong
// answer.
struct BreachCase {
  std::string name;
  std::vector<std::pair<std::uint64_t, std::uint32_t>> tokens;  // worker, sequence
  std::uint64_t ended_by = 0;                                   // 0: nobody
  EndReason reason = EndReason::kStop;
  std::uint32_t ended_tokens = 0;
};

class Breaches : public DispatcherTest, public ::testing::WithParamInterface<BreachCase> {};

TEST_P(Breaches, AreInternalErrors) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Submit();
  for (const auto& [worker, sequence] : GetParam().tokens) Token(worker, Key(1), sequence);
  if (GetParam().ended_by != 0) {
    Ended(GetParam().ended_by, Key(1), GetParam().reason, GetParam().ended_tokens);
  }
  EXPECT_EQ(ReasonOf(1), Reason::kInternal) << EndingOf(1).status;
}

INSTANTIATE_TEST_SUITE_P(
    Table, Breaches,
    ::testing::Values(
        BreachCase{"PrefillSendsASecondToken", {{1, 0}, {1, 1}}},
        BreachCase{"DecodeSendsTheFirstToken", {{2, 0}}},
        BreachCase{"MoreTokensThanAskedFor", {{1, 0}, {2, 5}}},
        BreachCase{"HandedOverWithoutToken", {}, 1, EndReason::kHandedOver, 0},
        BreachCase{"DecodeHandsOver", {{1, 0}}, 2, EndReason::kHandedOver, 0},
        BreachCase{"EndedWithAGap", {{1, 0}, {2, 1}, {2, 3}}, 2, EndReason::kStop, 3},
        BreachCase{"EndedBeforeItsTokens", {{1, 0}, {2, 1}}, 2, EndReason::kStop, 3},
        BreachCase{
            "EndedAfterMoreTokensThanItSays", {{1, 0}, {2, 1}, {2, 2}}, 2, EndReason::kStop, 1},
        BreachCase{"FinishedWithoutAnyToken", {}, 1, EndReason::kStop, 0},
        BreachCase{"LongerThanAskedFor", {{1, 0}, {2, 1}}, 2, EndReason::kLength, 5}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace baleen::router
