// MemberMailbox: what an owner hears and says while streams come and go.
#include "worker/group/rules/member_mailbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>

#include "tests/worker/group/group_test_util.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

class MemberMailboxTest : public testing::Test {
 protected:
  static MemberShape Shape() {
    return {.group = "prefill-0", .ranks = 2, .experts = 8, .moe_layers = 2};
  }
  static GroupPlacement Placement(std::uint64_t version) {
    return {.version = version, .shape = ShapeOf(2), .layers = LayersOf(2)};
  }
  static LeaderMessage Welcome(std::uint64_t version = 5) {
    return WelcomeMessage{.placement = Placement(version)};
  }
  static LeaderMessage FormedOf(std::uint64_t epoch) {
    return FormedMessage{.epoch = epoch, .placement_version = 5, .endpoint_addresses = {"a", "b"}};
  }
  static LeaderMessage LostOf(std::uint64_t epoch) {
    return LostMessage{.epoch = epoch, .rank = 1, .why = "group prefill-0: rank 1 has gone"};
  }

  template <typename T>
  T Next() {
    std::optional<GroupEvent> event = mailbox_.Next(absl::ZeroDuration());
    if (!event.has_value() || !std::holds_alternative<T>(*event)) {
      ADD_FAILURE() << "another event, or none";
      return {};
    }
    return std::get<T>(*std::move(event));
  }
  bool Silent() { return !mailbox_.Next(absl::ZeroDuration()).has_value(); }
  void Take(LeaderMessage message) { EXPECT_TRUE(mailbox_.Take(std::move(message)).ok()); }
  // A stream whose Joined and Formed the owner has taken.
  void Form(std::uint64_t epoch) {
    mailbox_.BeginStream();
    Take(Welcome());
    Next<Joined>();
    Take(FormedOf(epoch));
    Next<Formed>();
  }

  std::atomic<int> wakes_ = 0;
  MemberMailbox mailbox_{Shape(), [this] { ++wakes_; }};
};

TEST_F(MemberMailboxTest, EventsComeInOrderAndWake) {
  mailbox_.BeginStream();
  EXPECT_FALSE(mailbox_.welcomed());
  Take(Welcome());
  Take(FormedOf(7));
  Take(LeaderHeartbeat{});
  Take(PlaceMessage{.placement = Placement(6)});
  EXPECT_EQ(wakes_, 3);
  EXPECT_TRUE(mailbox_.welcomed());
  EXPECT_EQ(Next<Joined>().placement.version, 5u);
  EXPECT_EQ(Next<Formed>().epoch, 7u);
  EXPECT_EQ(Next<NewPlacement>().placement.version, 6u);
  EXPECT_EQ(mailbox_.last_epoch(), 7u);
  EXPECT_TRUE(Silent());
}

TEST_F(MemberMailboxTest, AStreamThatEndsIsTheEndOfTheOwnersEpochOnce) {
  Form(7);
  mailbox_.EndStream(absl::UnavailableError("connection reset"));
  mailbox_.EndStream(absl::UnavailableError("again"));
  const Lost lost = Next<Lost>();
  EXPECT_EQ(lost.epoch, 7u);
  EXPECT_EQ(lost.why.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(lost.why.message(), "group prefill-0: the leader has gone (connection reset)");
  EXPECT_TRUE(Silent());
}

TEST_F(MemberMailboxTest, WhatTheLeaderSaidOfTheLossIsKept) {
  Form(7);
  Take(LostOf(7));
  Take(FormedOf(8));
  mailbox_.EndStream(absl::UnavailableError("connection reset"));
  EXPECT_EQ(Next<Lost>().why.message(), "group prefill-0: rank 1 has gone");
  EXPECT_TRUE(Silent());  // epoch 8 was never seen by the owner
}

TEST_F(MemberMailboxTest, AnEpochThatTheOwnerHasNotSeenIsNotLost) {
  mailbox_.BeginStream();
  Take(Welcome());
  Take(FormedOf(7));
  mailbox_.EndStream(absl::UnavailableError("connection reset"));
  EXPECT_TRUE(Silent());
  mailbox_.BeginStream();
  Take(Welcome(6));
  EXPECT_EQ(Next<Joined>().placement.version, 6u);
}

TEST_F(MemberMailboxTest, AnOwnerThatTakesNothingCostsNothing) {
  Form(7);
  for (int stream = 0; stream < 1000; ++stream) {
    mailbox_.EndStream(absl::UnavailableError("connection reset"));
    mailbox_.BeginStream();
    Take(Welcome());
  }
  EXPECT_EQ(Next<Lost>().epoch, 7u);
  Next<Joined>();
  EXPECT_TRUE(Silent());
}

// A Ready of before reached the next stream, the group formed, and the owner's answer to Joined
// ended the epoch again.
TEST_F(MemberMailboxTest, WhatWasMeantForAnotherStreamIsDropped) {
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "none"});
  mailbox_.BeginStream();
  Take(Welcome());
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "too early"});
  EXPECT_FALSE(mailbox_.AwaitSaid(absl::ZeroDuration()).has_value());
  Next<Joined>();
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "old"});
  mailbox_.EndStream(absl::UnavailableError("connection reset"));
  mailbox_.BeginStream();
  Take(Welcome());
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "old"});
  EXPECT_FALSE(mailbox_.AwaitSaid(absl::ZeroDuration()).has_value());
  Next<Joined>();
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "first"});
  mailbox_.Say(ReadyMessage{.placement_version = 5, .endpoint_address = "newest"});
  const std::optional<MemberMessage> said = mailbox_.AwaitSaid(absl::ZeroDuration());
  ASSERT_TRUE(said.has_value());
  EXPECT_EQ(std::get<ReadyMessage>(*said).endpoint_address, "newest");
  EXPECT_FALSE(mailbox_.AwaitSaid(absl::ZeroDuration()).has_value());
}

TEST_F(MemberMailboxTest, ALeaderThatBreaksTheRulesIsFoundOut) {
  const std::vector<std::pair<std::vector<LeaderMessage>, std::string>> cases = {
      {{FormedOf(7)}, "first message is not Welcome"},
      {{Welcome(), Welcome()}, "second Welcome"},
      {{Welcome(), FormedOf(7), FormedOf(8)}, "Formed in an epoch"},
      {{Welcome(), LostOf(7)}, "Lost of another epoch"},
      {{Welcome(), FormedMessage{.epoch = 9, .endpoint_addresses = {"a"}}}, "1 addresses for 2"},
      {{Welcome(), FormedMessage{.epoch = 0, .endpoint_addresses = {"a", "b"}}}, "not new"}};
  std::uint64_t shift = 0;
  for (const auto& [messages, expected] : cases) {
    MemberMailbox mailbox(Shape(), nullptr);
    mailbox.BeginStream();
    absl::Status status;
    for (const LeaderMessage& message : messages) status = mailbox.Take(message);
    EXPECT_THAT(std::string(status.message()), HasSubstr(expected)) << shift++;
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  }
  mailbox_.BeginStream();
  GroupPlacement other = Placement(5);
  other.layers.pop_back();
  const absl::Status unfit = mailbox_.Take(WelcomeMessage{.placement = other});
  EXPECT_EQ(unfit.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(unfit.message()), HasSubstr("1 layers of 8 experts on 2 ranks"));
}

TEST_F(MemberMailboxTest, AFloodOfEventsEndsTheStream) {
  mailbox_.BeginStream();
  Take(Welcome());
  absl::Status status;
  int taken = 0;
  while (status.ok() && taken < 1000) {
    status = mailbox_.Take(PlaceMessage{.placement = Placement(6)});
    ++taken;
  }
  EXPECT_THAT(std::string(status.message()), HasSubstr("too many messages"));
  EXPECT_EQ(taken, 64);
}

TEST_F(MemberMailboxTest, CountsAddUpBetweenReports) {
  const ExpertCounts once = {{1, 0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 2}};
  EXPECT_FALSE(mailbox_.TakeCounts().has_value());
  mailbox_.AddCounts(once);
  mailbox_.AddCounts(once);
  const std::optional<CountsMessage> report = mailbox_.TakeCounts();
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->counts[0][0], 2u);
  EXPECT_EQ(report->counts[1][7], 4u);
  EXPECT_FALSE(mailbox_.TakeCounts().has_value());
  mailbox_.AddCounts({std::vector<std::uint64_t>(8, UINT64_MAX), std::vector<std::uint64_t>(8)});
  EXPECT_EQ(mailbox_.TakeCounts()->counts[0][0], kExpertTokensMax);
}

TEST_F(MemberMailboxTest, WaitsEndWithWhatTheyWaitFor) {
  mailbox_.BeginStream();
  std::thread stream([this] {
    Take(Welcome());
    const std::optional<MemberMessage> said = mailbox_.AwaitSaid(absl::Minutes(1));
    ASSERT_TRUE(said.has_value());
    EXPECT_EQ(std::get<BrokenMessage>(*said).epoch, 3u);
    Take(FormedOf(4));
    EXPECT_FALSE(mailbox_.AwaitSaid(absl::InfiniteDuration()).has_value());
  });
  EXPECT_TRUE(mailbox_.AwaitWelcome(absl::Minutes(1)));
  EXPECT_TRUE(mailbox_.Next(absl::InfiniteDuration()).has_value());
  mailbox_.Say(BrokenMessage{.epoch = 3, .why = "test"});
  EXPECT_TRUE(mailbox_.Next(absl::InfiniteDuration()).has_value());
  mailbox_.EndStream(absl::UnavailableError("over"));
  EXPECT_FALSE(mailbox_.AwaitWelcome(absl::Minutes(1)));
  stream.join();
  EXPECT_EQ(Next<Lost>().epoch, 4u);
  mailbox_.Refuse(absl::FailedPreconditionError("no"));
  EXPECT_EQ(Next<Refused>().why.message(), "no");
}

}  // namespace
}  // namespace baleen::worker
