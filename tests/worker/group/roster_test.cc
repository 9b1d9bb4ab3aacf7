// Roster: who hears what, in any order of joins, losses and returns; and the limits of time.
#include "worker/group/rules/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "observability/base/log.h"
#include "tests/worker/group/group_test_util.h"

namespace baleen::worker {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr std::uint64_t kFirst = 1000;

RosterOptions OptionsOf(std::uint32_t ranks) {
  return {.terms = TermsOf(ranks), .first_number = kFirst};
}

// A roster of four ranks, and what each stream has been told.
class RosterTest : public testing::Test {
 protected:
  explicit RosterTest(RosterOptions options = OptionsOf(4))
      : roster_(std::move(options), ShapeOf(4), LayersOf(4), absl::ZeroDuration()) {}

  HelloMessage Hello(std::uint32_t rank, std::uint64_t incarnation = 0) {
    return {.terms = TermsOf(4),
            .rank = rank,
            .incarnation = incarnation == 0 ? 100 + rank : incarnation};
  }
  absl::Status Join(std::uint64_t stream, std::uint32_t rank, std::uint64_t incarnation = 0) {
    return Hear(stream, Hello(rank, incarnation));
  }
  absl::Status Hear(std::uint64_t stream, const MemberMessage& message) {
    const absl::Status status = roster_.Hear({stream}, message, now_);
    Collect();
    return status;
  }
  absl::Status Ready(std::uint64_t stream, std::uint64_t version = kFirst) {
    return Hear(stream, ReadyMessage{version, "at " + std::to_string(stream)});
  }
  void Leave(std::uint64_t stream) {
    roster_.Leave({stream}, "its stream ended", now_);
    Collect();
  }
  void Pass(absl::Duration time) {
    now_ += time;
    roster_.Tick(now_);
    Collect();
  }
  // Streams 1 to 4 are ranks 0 to 3.
  void FormAll() {
    for (std::uint32_t rank = 0; rank < 4; ++rank) ASSERT_TRUE(Join(rank + 1, rank).ok());
    for (std::uint64_t stream = 1; stream <= 4; ++stream) ASSERT_TRUE(Ready(stream).ok());
  }

  // The messages of a kind that a stream was told since the last call.
  template <typename T>
  std::vector<T> Told(std::uint64_t stream) {
    std::vector<T> found;
    for (const auto& message : told_[stream]) {
      if (const auto* body = std::get_if<T>(message.get())) found.push_back(*body);
    }
    std::erase_if(told_[stream],
                  [](const auto& message) { return std::holds_alternative<T>(*message); });
    return found;
  }

  void Collect() {
    for (RosterOutput& output : roster_.Take()) {
      if (auto* why = std::get_if<absl::Status>(&output.what)) {
        ended_[output.stream.value] = *why;
      } else {
        told_[output.stream.value].push_back(
            std::get<std::shared_ptr<const LeaderMessage>>(output.what));
      }
    }
  }

  absl::Duration now_;
  Roster roster_;
  std::map<std::uint64_t, std::vector<std::shared_ptr<const LeaderMessage>>> told_;
  std::map<std::uint64_t, absl::Status> ended_;
};

TEST_F(RosterTest, FormsWhenTheLastRankIsReady) {
  for (const std::uint32_t rank : {2u, 0u, 3u, 1u}) EXPECT_TRUE(Join(rank + 1, rank).ok());
  EXPECT_EQ(Told<WelcomeMessage>(2).at(0).placement.version, kFirst);
  for (const std::uint64_t stream : {4, 1, 3}) EXPECT_TRUE(Ready(stream).ok());
  EXPECT_EQ(roster_.epoch(), 0u);
  EXPECT_TRUE(Ready(2).ok());
  EXPECT_EQ(roster_.epoch(), kFirst);
  for (std::uint64_t stream = 1; stream <= 4; ++stream) {
    const std::vector<FormedMessage> formed = Told<FormedMessage>(stream);
    ASSERT_EQ(formed.size(), 1u);
    EXPECT_EQ(formed[0].epoch, kFirst);
    EXPECT_EQ(formed[0].placement_version, kFirst);
    EXPECT_THAT(formed[0].endpoint_addresses, ElementsAre("at 1", "at 2", "at 3", "at 4"));
  }
}

TEST_F(RosterTest, ALostRankEndsTheEpochForAllOthersAndItsReturnBeginsAnother) {
  FormAll();
  Leave(3);
  EXPECT_EQ(roster_.epoch(), 0u);
  for (const std::uint64_t stream : {1, 2, 4}) {
    const std::vector<LostMessage> lost = Told<LostMessage>(stream);
    ASSERT_EQ(lost.size(), 1u);
    EXPECT_EQ(lost[0].epoch, kFirst);
    EXPECT_EQ(lost[0].rank, 2u);
    EXPECT_EQ(lost[0].why, "group prefill-0: rank 2 has gone (its stream ended)");
    EXPECT_TRUE(Ready(stream).ok());
  }
  EXPECT_THAT(Told<LostMessage>(3), IsEmpty());
  Leave(3);  // again: nothing
  EXPECT_TRUE(Join(9, 2, 555).ok());
  EXPECT_TRUE(Ready(9).ok());
  EXPECT_EQ(roster_.epoch(), kFirst + 1);
  EXPECT_THAT(Told<FormedMessage>(9).at(0).endpoint_addresses,
              ElementsAre("at 1", "at 2", "at 9", "at 4"));
}

TEST_F(RosterTest, ABrokenEndpointEndsTheEpochForTheOneThatSaysSoToo) {
  FormAll();
  EXPECT_TRUE(Hear(2, BrokenMessage{kFirst, "dispatch: waited 5s for rank 3"}).ok());
  // It crosses with the Lost: of an epoch that is over.
  EXPECT_TRUE(Hear(3, BrokenMessage{kFirst, "dispatch: waited 5s for rank 3"}).ok());
  for (std::uint64_t stream = 1; stream <= 4; ++stream) {
    const std::vector<LostMessage> lost = Told<LostMessage>(stream);
    ASSERT_EQ(lost.size(), 1u) << stream;
    EXPECT_EQ(lost[0].rank, 1u);
    EXPECT_THAT(lost[0].why, HasSubstr("rank 1 has broken off: dispatch: waited 5s for rank 3"));
    EXPECT_TRUE(Ready(stream).ok());
  }
  EXPECT_EQ(roster_.epoch(), kFirst + 1);
  EXPECT_TRUE(Hear(3, BrokenMessage{kFirst, "late"}).ok());
  EXPECT_EQ(roster_.epoch(), kFirst + 1);
}

// Two ranks that could not reach each other formed groups as fast as the leader could write.
TEST_F(RosterTest, EndpointsThatBreakAgainAndAgainArePaced) {
  FormAll();
  const auto break_and_be_ready = [this] {
    EXPECT_TRUE(Hear(2, BrokenMessage{roster_.epoch(), "no way to rank 3"}).ok());
    for (std::uint64_t stream = 1; stream <= 4; ++stream) EXPECT_TRUE(Ready(stream).ok());
  };
  const auto pass = [this](absl::Duration time) {
    for (std::uint64_t stream = 1; stream <= 4; ++stream) {
      EXPECT_TRUE(Hear(stream, MemberHeartbeat{}).ok());
    }
    Pass(time);
  };
  break_and_be_ready();
  EXPECT_EQ(roster_.epoch(), kFirst + 1);  // the first costs nothing
  absl::Duration pause = absl::Milliseconds(100);
  for (std::uint64_t epoch = kFirst + 2; epoch < kFirst + 12; ++epoch) {
    break_and_be_ready();
    pass(pause - absl::Milliseconds(1));
    EXPECT_EQ(roster_.epoch(), 0u);
    pass(absl::Milliseconds(1));
    EXPECT_EQ(roster_.epoch(), epoch);
    pause = std::min(2 * pause, absl::Seconds(2));
  }
  for (int second = 0; second < 10; ++second) pass(absl::Seconds(1));
  break_and_be_ready();  // a steady time ends it
  EXPECT_EQ(roster_.epoch(), kFirst + 12);
}

TEST_F(RosterTest, ANewEndpointInAnEpochIsItsEnd) {
  FormAll();
  EXPECT_TRUE(Ready(4).ok());
  EXPECT_THAT(Told<LostMessage>(4).at(0).why, HasSubstr("rank 3 has a new endpoint"));
  for (std::uint64_t stream = 1; stream <= 3; ++stream) EXPECT_TRUE(Ready(stream).ok());
  EXPECT_EQ(roster_.epoch(), kFirst + 1);
}

TEST_F(RosterTest, WhoDiffersIsRefusedWithTheFieldAndBothValues) {
  HelloMessage hello = Hello(2);
  hello.terms.model_digest = "other";
  absl::Status refused = Hear(1, hello);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(),
            "group prefill-0: rank 2 has the model digest 'other', the group 'd1'");
  const std::vector<std::pair<std::function<void(HelloMessage&)>, std::string>> cases = {
      {[](auto& h) { h.terms.group = "decode-0"; }, "the group name 'decode-0'"},
      {[](auto& h) { h.terms.ranks = 8; }, "a number of ranks of 8, the group 4"},
      {[](auto& h) { h.terms.build = "0.2"; }, "the build '0.2', the group '0.1'"},
      {[](auto& h) { h.terms.facts[1].value = "64"; }, "rows_max '64', the group '512'"},
      {[](auto& h) { h.terms.facts.pop_back(); }, "rows_max none, the group '512'"},
      {[](auto& h) {
         h.terms.facts.push_back({"x", "1"});
       },
       "x '1', the group none"},
      {[](auto& h) { h.protocol_version = 9; }, "protocol version 9, the leader 1"}};
  for (const auto& [change, expected] : cases) {
    hello = Hello(2);
    change(hello);
    refused = Hear(1, hello);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()), HasSubstr(expected));
  }
  hello = Hello(2);
  std::swap(hello.terms.facts[0], hello.terms.facts[1]);  // their order means nothing
  EXPECT_TRUE(Hear(1, hello).ok());
}

TEST_F(RosterTest, WhatIsOutOfRangeIsRefused) {
  EXPECT_THAT(std::string(Join(1, 4).message()), HasSubstr("there is no rank 4, only 0 to 3"));
  HelloMessage hello = Hello(1);
  hello.incarnation = 0;
  EXPECT_EQ(Hear(1, hello).code(), absl::StatusCode::kInvalidArgument);
  hello = Hello(1);
  hello.last_epoch = kEpochMax + 1;
  EXPECT_EQ(Hear(1, hello).code(), absl::StatusCode::kInvalidArgument);
  hello = Hello(1);
  hello.terms.facts.resize(kGroupFactsMax + 1, {"a", "b"});
  EXPECT_EQ(Hear(1, hello).code(), absl::StatusCode::kInvalidArgument);
  hello = Hello(1);
  hello.terms.build = "a\nb";
  EXPECT_THAT(std::string(Hear(1, hello).message()), HasSubstr("not printable ASCII"));
  EXPECT_EQ(Ready(1).code(), absl::StatusCode::kFailedPrecondition);  // no Hello
}

TEST_F(RosterTest, AMemberThatBreaksTheRulesIsGone) {
  const std::vector<MemberMessage> bad = {
      Hello(0),
      ReadyMessage{kFirst, ""},
      ReadyMessage{kFirst, std::string(kEndpointAddressBytesMax + 1, 'x')},
      ReadyMessage{kFirst + 1, "at"},
      AdoptedMessage{kFirst + 1},
      CountsMessage{.counts = {{1, 2}}},
      CountsMessage{.counts = ExpertCounts(2, std::vector<std::uint64_t>(7))}};
  std::uint64_t stream = 10;
  for (const MemberMessage& message : bad) {
    ASSERT_TRUE(Join(++stream, 0).ok());
    EXPECT_EQ(Hear(stream, message).code(), absl::StatusCode::kInvalidArgument) << message.index();
    EXPECT_FALSE(roster_.View().members[0].present);
  }
}

TEST_F(RosterTest, ARankBelongsToTheProcessThatLives) {
  FormAll();
  const absl::Status twice = Join(7, 2, 777);
  EXPECT_EQ(twice.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(twice.message()), HasSubstr("rank 2 is held by another process"));
  EXPECT_EQ(roster_.epoch(), kFirst);
  // The same process may join again: its old stream ends, and the epoch with it.
  EXPECT_TRUE(Join(8, 2).ok());
  EXPECT_EQ(ended_.at(3).code(), absl::StatusCode::kAborted);
  EXPECT_THAT(Told<LostMessage>(1).at(0).why, HasSubstr("rank 2 has gone (it joined again)"));
  EXPECT_THAT(Told<LostMessage>(8), IsEmpty());
  Leave(3);  // the old stream's end has no effect any more
  EXPECT_TRUE(roster_.View().members[2].present);
}

TEST_F(RosterTest, EpochsGoOnAboveThoseThatMembersHaveSeen) {
  HelloMessage hello = Hello(0);
  hello.last_epoch = 5'000'000;
  EXPECT_TRUE(Hear(1, hello).ok());
  for (std::uint32_t rank = 1; rank < 4; ++rank) EXPECT_TRUE(Join(rank + 1, rank).ok());
  for (std::uint64_t stream = 1; stream <= 4; ++stream) EXPECT_TRUE(Ready(stream).ok());
  EXPECT_EQ(roster_.epoch(), 5'000'001u);
}

TEST_F(RosterTest, WhoWaitsInVainIsToldForWhom) {
  EXPECT_TRUE(Join(1, 0).ok());
  EXPECT_TRUE(Join(2, 1).ok());
  EXPECT_TRUE(Ready(1).ok());
  for (int i = 0; i < 599; ++i) {
    Pass(absl::Seconds(1));
    EXPECT_TRUE(Hear(1, MemberHeartbeat{}).ok());
    EXPECT_TRUE(Hear(2, MemberHeartbeat{}).ok());
  }
  EXPECT_THAT(ended_, IsEmpty());
  Pass(absl::Seconds(1));
  for (const std::uint64_t stream : {1, 2}) {
    EXPECT_EQ(ended_.at(stream).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(ended_.at(stream).message(),
              "group prefill-0: waited 10m for ranks 2, 3 of 4; rank 1 has joined and is not "
              "ready");
  }
  // The next ones have as long again.
  EXPECT_TRUE(Join(3, 0).ok());
  Pass(absl::Seconds(3));
  EXPECT_FALSE(ended_.contains(3));
}

TEST_F(RosterTest, AFormedGroupWaitsForNobody) {
  FormAll();
  for (int i = 0; i < 700; ++i) {
    for (std::uint64_t stream = 1; stream <= 4; ++stream) {
      EXPECT_TRUE(Hear(stream, MemberHeartbeat{}).ok());
    }
    Pass(absl::Seconds(1));
  }
  EXPECT_EQ(roster_.epoch(), kFirst);
  // The wait counts from the end of the epoch.
  Leave(1);
  Pass(absl::Seconds(1));
  EXPECT_THAT(ended_, IsEmpty());
}

TEST_F(RosterTest, ASilentMemberIsLost) {
  FormAll();
  now_ += absl::Seconds(5);
  for (const std::uint64_t stream : {1, 2, 4}) {
    EXPECT_TRUE(Hear(stream, MemberHeartbeat{}).ok());
  }
  Pass(absl::ZeroDuration());
  EXPECT_EQ(roster_.epoch(), kFirst);
  Pass(absl::Milliseconds(1));
  EXPECT_EQ(ended_.at(3).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Told<LostMessage>(4).at(0).why,
            "group prefill-0: rank 2 has gone (it was silent for 5s)");
  EXPECT_TRUE(Join(9, 2, 999).ok());
}

TEST_F(RosterTest, HeartbeatsGoOutOnTime) {
  FormAll();
  Pass(absl::Milliseconds(499));
  EXPECT_THAT(Told<LeaderHeartbeat>(1), IsEmpty());
  Pass(absl::Milliseconds(1));
  EXPECT_EQ(Told<LeaderHeartbeat>(1).size(), 1u);
}

TEST_F(RosterTest, APlacementIsAdoptedByAllBeforeTheNext) {
  const std::vector<std::vector<std::int32_t>> turned(2, {7, 6, 5, 4, 3, 2, 1, 0});
  EXPECT_THAT(std::string(roster_.Place(turned).status().message()),
              HasSubstr("is not formed: waits for ranks 0, 1, 2, 3 of 4"));
  FormAll();
  EXPECT_EQ(roster_.Place(turned).value(), kFirst + 1);
  Collect();
  EXPECT_EQ(Told<PlaceMessage>(3).at(0).placement.layers[1].expert_of_slot()[0], 7);
  EXPECT_EQ(roster_.epoch(), kFirst);
  for (std::uint64_t stream = 1; stream <= 4; ++stream) {
    EXPECT_THAT(std::string(roster_.Place(turned).status().message()),
                HasSubstr("has not adopted placement 1001 on all ranks yet"));
    EXPECT_TRUE(Hear(stream, AdoptedMessage{kFirst + 1}).ok());
  }
  EXPECT_EQ(roster_.Place(turned).value(), kFirst + 2);
  // Lost while it was being adopted: the group forms under the newest only.
  Leave(1);
  EXPECT_TRUE(Join(9, 0, 999).ok());
  EXPECT_EQ(Told<WelcomeMessage>(9).at(0).placement.version, kFirst + 2);
  for (const std::uint64_t stream : {9, 2, 3, 4}) EXPECT_TRUE(Ready(stream, kFirst + 1).ok());
  EXPECT_EQ(roster_.epoch(), 0u);
  for (const std::uint64_t stream : {9, 2, 3, 4}) EXPECT_TRUE(Ready(stream, kFirst + 2).ok());
  EXPECT_EQ(Told<FormedMessage>(2).back().placement_version, kFirst + 2);
}

TEST_F(RosterTest, APlacementThatDoesNotFitIsRefused) {
  FormAll();
  EXPECT_THAT(std::string(roster_.Place({{0, 1, 2, 3, 4, 5, 6, 7}}).status().message()),
              HasSubstr("1 layers, must be 2"));
  const auto twice = roster_.Place({{0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 2, 3, 4, 5, 6, 7}});
  EXPECT_EQ(twice.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(twice.status().message()), HasSubstr("layer 1: "));
}

TEST_F(RosterTest, CountsAddUpAndShowTheImbalance) {
  FormAll();
  const ExpertCounts counts = {{8, 0, 0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1, 1, 1}};
  EXPECT_TRUE(Hear(1, CountsMessage{counts}).ok());
  EXPECT_TRUE(Hear(4, CountsMessage{counts}).ok());
  const GroupView view = roster_.View();
  EXPECT_EQ(view.counts[0][0], 16u);
  EXPECT_THAT(view.imbalance, ElementsAre(4.0, 1.0));
  ExpertCounts most = counts;
  most[0][0] = UINT64_MAX;
  EXPECT_TRUE(Hear(1, CountsMessage{most}).ok());
  EXPECT_EQ(roster_.View().counts[0][0], kExpertTokensMax);
}

class RebalancingRosterTest : public RosterTest {
 protected:
  static RosterOptions Rebalancing() {
    RosterOptions options = OptionsOf(4);
    options.rebalance_every = absl::Seconds(2);
    return options;
  }
  RebalancingRosterTest() : RosterTest(Rebalancing()) {}
};

TEST_F(RebalancingRosterTest, ALoadThatIsUnevenMovesExperts) {
  FormAll();
  // Ranks hold experts 0 1 | 2 3 | 4 5 | 6 7.
  const ExpertCounts counts = {{900, 900, 10, 10, 10, 10, 10, 10},
                               {500, 500, 500, 500, 500, 500, 500, 500}};
  EXPECT_TRUE(Hear(1, CountsMessage{counts}).ok());
  Pass(absl::Seconds(1));
  EXPECT_THAT(Told<PlaceMessage>(2), IsEmpty());
  Pass(absl::Seconds(1));
  const std::vector<PlaceMessage> placed = Told<PlaceMessage>(2);
  ASSERT_EQ(placed.size(), 1u);
  EXPECT_EQ(placed[0].placement.version, kFirst + 1);
  EXPECT_EQ(placed[0].placement.layers[1], LayersOf(4)[1]);
  EXPECT_LT(roster_.View().imbalance[0], 2.1);
  EXPECT_EQ(roster_.View().counts[0][0], 450u);
  // Nothing more while it is not adopted, nor once it is: the load is as even as it gets.
  Pass(absl::Seconds(2));
  for (std::uint64_t stream = 1; stream <= 4; ++stream) {
    EXPECT_TRUE(Hear(stream, AdoptedMessage{kFirst + 1}).ok());
  }
  Pass(absl::Seconds(2));
  EXPECT_THAT(Told<PlaceMessage>(2), IsEmpty());
}

// Any order of joins, losses, breaks, placements and silence, with the promises checked after each.
class RandomRoster {
 public:
  RandomRoster(std::uint32_t ranks, std::uint64_t seed)
      : ranks_(ranks),
        random_(seed),
        roster_(Options(ranks), ShapeOf(ranks), LayersOf(ranks), absl::ZeroDuration()) {}

  void Step() {
    now_ += absl::Milliseconds(Below(400));
    switch (Below(10)) {
      case 0:
      case 1:
      case 2:
        Join();
        break;
      case 3:
      case 4:
      case 5:
      case 6:
        Talk();
        break;
      case 7:
        if (!streams_.empty() && Below(3) == 0) {
          const auto it = Any();
          roster_.Leave({it->first}, "its stream ended", now_);
          streams_.erase(it);
        }
        break;
      case 8:
        if (const auto version =
                roster_.Place(std::vector<std::vector<std::int32_t>>(2, {7, 6, 5, 4, 3, 2, 1, 0}));
            version.ok()) {
          EXPECT_GT(*version, version_);
          version_ = *version;
        }
        break;
      case 9:
        roster_.Tick(now_);
        break;
    }
    Apply();
    Check();
  }
  std::uint64_t epochs() const { return epochs_.size(); }

 private:
  // What a member knows.
  struct Stream {
    std::uint32_t rank = 0;
    std::uint64_t version = 0;  // the newest that it was told
    std::uint64_t epoch = 0;    // Formed without Lost
    bool endpoint = false;      // it has said Ready since the last epoch
    bool current = false;       // it has said that it has the newest placement
  };
  static RosterOptions Options(std::uint32_t ranks) {
    RosterOptions options = OptionsOf(ranks);
    options.join_max = absl::Seconds(30);
    return options;
  }
  std::uint64_t Below(std::uint64_t limit) { return random_() % limit; }
  std::map<std::uint64_t, Stream>::iterator Any() {
    return std::next(streams_.begin(), static_cast<std::ptrdiff_t>(Below(streams_.size())));
  }

  void Join() {
    const auto rank = static_cast<std::uint32_t>(Below(ranks_));
    const std::uint64_t stream = ++last_stream_;
    const absl::Status joined = roster_.Hear(
        {stream}, HelloMessage{.terms = TermsOf(ranks_), .rank = rank, .incarnation = 1 + Below(2)},
        now_);
    if (joined.ok()) {
      streams_[stream] = {.rank = rank};
    } else {
      EXPECT_EQ(joined.code(), absl::StatusCode::kAlreadyExists);
    }
  }

  void Talk() {
    if (streams_.empty()) return;
    auto& [stream, state] = *Any();
    MemberMessage message = MemberHeartbeat{};
    const std::uint64_t kind = Below(16);
    if (state.version == 0) return;  // Welcome is on its way
    if (kind < 10 && state.epoch == 0) {
      const bool old = kind == 0;
      message = ReadyMessage{state.version - (old ? 1 : 0), std::to_string(stream)};
      state.endpoint = true;
      state.current = !old;
    } else if (kind == 10 && state.epoch != 0) {
      message = BrokenMessage{state.epoch, "test"};
    } else if (kind == 11) {
      message = BrokenMessage{kFirst, "of some epoch"};
    } else if (kind == 12) {
      message = AdoptedMessage{state.version};
      state.current = true;
    }
    EXPECT_TRUE(roster_.Hear({stream}, message, now_).ok());
  }

  void Apply() {
    for (RosterOutput& output : roster_.Take()) {
      const auto it = streams_.find(output.stream.value);
      if (it == streams_.end()) continue;  // told, and gone in the same step
      if (std::holds_alternative<absl::Status>(output.what)) {
        streams_.erase(it);
        continue;
      }
      Tell(it->second, *std::get<std::shared_ptr<const LeaderMessage>>(output.what));
    }
  }

  void Tell(Stream& stream, const LeaderMessage& message) {
    if (const auto* welcome = std::get_if<WelcomeMessage>(&message)) {
      EXPECT_EQ(stream.version, 0u) << "one Welcome, first";
      stream.version = version_ = welcome->placement.version;
      return;
    }
    EXPECT_NE(stream.version, 0u);
    if (const auto* place = std::get_if<PlaceMessage>(&message)) {
      EXPECT_EQ(place->placement.version, stream.version + 1) << "none is left out";
      stream.version = place->placement.version;
      stream.current = false;
    } else if (const auto* formed = std::get_if<FormedMessage>(&message)) {
      EXPECT_EQ(stream.epoch, 0u);
      EXPECT_TRUE(stream.endpoint && stream.current) << "Formed only with all ranks ready";
      EXPECT_EQ(formed->placement_version, stream.version);
      if (!epochs_.contains(formed->epoch)) {
        EXPECT_TRUE(epochs_.empty() || formed->epoch > *epochs_.rbegin()) << "epochs grow";
        epochs_.insert(formed->epoch);
      }
      EXPECT_EQ(formed->epoch, *epochs_.rbegin()) << "one live epoch";
      stream.epoch = formed->epoch;
      stream.endpoint = false;
    } else if (const auto* lost = std::get_if<LostMessage>(&message)) {
      EXPECT_EQ(lost->epoch, stream.epoch) << "once, and of its epoch";
      stream.epoch = 0;
    }
  }

  void Check() {
    std::set<std::uint32_t> ranks;
    for (const auto& [stream, state] : streams_) {
      EXPECT_TRUE(ranks.insert(state.rank).second) << "a rank has one stream";
      EXPECT_EQ(state.epoch, roster_.epoch()) << "all hear of the begin and the end of an epoch";
    }
    EXPECT_TRUE(roster_.epoch() == 0 || ranks.size() == ranks_);
  }

  const std::uint32_t ranks_;
  std::mt19937_64 random_;
  absl::Duration now_;
  Roster roster_;
  std::map<std::uint64_t, Stream> streams_;
  std::uint64_t last_stream_ = 0;
  std::uint64_t version_ = 0;
  std::set<std::uint64_t> epochs_;
};

TEST(RandomRosterTest, PromisesHoldInAnyOrder) {
  // Tens of thousands of lines say nothing.
  log::Init("group_rules_test", log::Format::kText, log::Level::kError);
  std::uint64_t epochs = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomRoster roster(1u << (seed % 4), seed);
    for (int step = 0; step < 800; ++step) roster.Step();
    epochs += roster.epochs();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(epochs, 500u) << "too few groups form for the test to mean anything";
}

}  // namespace
}  // namespace baleen::worker
