// GroupService and GroupMember over real gRPC: joining, refusing, losing, forming again.
#include "worker/group/group_service.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "proto/baleen/v1/group.grpc.pb.h"
#include "tests/worker/group/group_test_util.h"
#include "worker/group/group_member.h"

namespace baleen::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Longer than anything here takes; a test that waits so long fails.
constexpr absl::Duration kLimit = absl::Seconds(60);

std::string UniqueAddress() {
  static std::atomic<int> count = 0;
  return "unix-abstract:baleen-group-test-" + std::to_string(::getpid()) + "-" +
         std::to_string(++count);
}

class GroupServiceTest : public testing::Test {
 protected:
  GroupServiceOptions LeaderOptions(std::uint32_t ranks) {
    return {.listen = UniqueAddress(),
            .roster = {.terms = TermsOf(ranks), .first_number = ++first_number_ * 1000},
            .shape = ShapeOf(ranks),
            .layers = LayersOf(ranks),
            .tick = absl::Milliseconds(5)};
  }
  void Lead(GroupServiceOptions options) {
    auto service = GroupService::Start(std::move(options));
    ASSERT_TRUE(service.ok()) << service.status();
    leader_ = *std::move(service);
  }
  GroupMemberOptions MemberOptions(std::uint32_t ranks, std::uint32_t rank) {
    return {.leader = leader_ ? leader_->address() : "127.0.0.1:1",
            .terms = TermsOf(ranks),
            .rank = rank,
            .incarnation = ++incarnation_,
            .experts = 8,
            .moe_layers = 2,
            .counts_every = absl::Milliseconds(1),
            .backoff = {.first = absl::Milliseconds(1), .longest = absl::Milliseconds(20)}};
  }
  std::unique_ptr<GroupMember> Join(GroupMemberOptions options) {
    auto member = std::make_unique<GroupMember>(std::move(options));
    EXPECT_TRUE(member->Start().ok());
    return member;
  }
  std::unique_ptr<GroupMember> Join(std::uint32_t ranks, std::uint32_t rank) {
    return Join(MemberOptions(ranks, rank));
  }
  // The next event, which is a T.
  template <typename T>
  static T Next(GroupMember& member) {
    std::optional<GroupEvent> event = member.NextEvent(kLimit);
    if (!event.has_value() || !std::holds_alternative<T>(*event)) {
      ADD_FAILURE() << "event " << (event ? std::to_string(event->index()) : "none");
      return {};
    }
    return std::get<T>(*std::move(event));
  }
  // Takes Joined, answers it.
  static void MakeReady(GroupMember& member, const std::string& address) {
    member.Ready(Next<Joined>(member).placement.version, address);
  }
  void JoinAll(std::uint32_t ranks) {
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      members_.push_back(Join(ranks, rank));
      MakeReady(*members_.back(), "at " + std::to_string(rank));
    }
    for (auto& member : members_) Next<Formed>(*member);
  }
  // Of a call that says `message`, if there is one.
  grpc::Status Ending(const v1::MemberMessage* message) {
    const auto stub = Stub();
    grpc::ClientContext call;
    const auto stream = stub->Join(&call);
    if (message != nullptr) stream->Write(*message);
    v1::LeaderMessage answer;
    while (stream->Read(&answer)) {
    }
    return stream->Finish();
  }
  std::unique_ptr<v1::Group::Stub> Stub() {
    return v1::Group::NewStub(
        grpc::CreateChannel(leader_->address(), grpc::InsecureChannelCredentials()));
  }

  ManualClock clock_;  // where a test asks for it
  std::uint64_t first_number_ = 0;
  std::uint64_t incarnation_ = 0;
  std::unique_ptr<GroupService> leader_;
  std::vector<std::unique_ptr<GroupMember>> members_;
};

TEST_F(GroupServiceTest, FormsInAnyOrderOfJoining) {
  GroupServiceOptions options = LeaderOptions(4);
  options.listen = "127.0.0.1:0";
  Lead(std::move(options));
  EXPECT_THAT(leader_->address(), testing::StartsWith("127.0.0.1:"));
  std::atomic<int> wakes = 0;
  GroupMember last(MemberOptions(4, 2), [&wakes] { ++wakes; });
  ASSERT_TRUE(last.Start().ok());
  const absl::StatusOr<GroupPlacement> placement = last.AwaitJoined(kLimit);
  ASSERT_TRUE(placement.ok()) << placement.status();
  EXPECT_EQ(placement->version, 1000u);
  EXPECT_EQ(placement->layers, LayersOf(4));
  last.Ready(1000, "at 2");
  const auto first = Join(4, 0);
  MakeReady(*first, "at 0");
  const auto third = Join(4, 1);
  MakeReady(*third, "at 1");
  const auto second = Join(4, 3);
  MakeReady(*second, std::string(kEndpointAddressBytesMax, '\xff'));
  for (GroupMember* member : {&last, first.get(), second.get(), third.get()}) {
    const Formed formed = Next<Formed>(*member);
    EXPECT_EQ(formed.epoch, 1000u);
    EXPECT_THAT(formed.endpoint_addresses,
                ElementsAre("at 0", "at 1", "at 2", std::string(kEndpointAddressBytesMax, '\xff')));
  }
  while (wakes < 2) ::sched_yield();  // Joined and Formed; it follows the event
}

TEST_F(GroupServiceTest, MembersComeBeforeTheLeader) {
  GroupServiceOptions options = LeaderOptions(2);
  GroupMemberOptions of_member = MemberOptions(2, 1);
  of_member.leader = options.listen;
  const auto early = Join(of_member);
  EXPECT_FALSE(early->NextEvent().has_value());
  Lead(std::move(options));
  MakeReady(*early, "at 1");
  const auto leaders_own = Join(2, 0);
  MakeReady(*leaders_own, "at 0");
  Next<Formed>(*early);
}

TEST_F(GroupServiceTest, WhoDiffersIsRefusedForGood) {
  Lead(LeaderOptions(2));
  GroupMemberOptions other = MemberOptions(2, 1);
  other.terms.model_digest = "d2";
  auto member = Join(other);
  const absl::Status digest = member->AwaitJoined(kLimit).status();
  EXPECT_EQ(digest.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(digest.message(), "group prefill-0: rank 1 has the model digest 'd2', the group 'd1'");
  other = MemberOptions(8, 7);
  member = Join(other);
  EXPECT_THAT(std::string(Next<Refused>(*member).why.message()),
              HasSubstr("a number of ranks of 8, the group 2"));
  other = MemberOptions(2, 1);
  other.experts = 16;
  member = Join(other);
  EXPECT_THAT(std::string(Next<Refused>(*member).why.message()),
              HasSubstr("2 layers of 8 experts on 2 ranks, this rank has 2 layers of 16"));
  other.rank = 2;
  EXPECT_THAT(std::string(GroupMember(other).Start().message()),
              HasSubstr("there is no rank 2, only 0 to 1"));
}

TEST_F(GroupServiceTest, ALostMemberIsNamedAndTheGroupFormsAgain) {
  Lead(LeaderOptions(4));
  JoinAll(4);
  const absl::Duration lost_at = SystemClock().Monotonic();
  members_[2].reset();  // as a killed process: its socket closes
  for (const std::uint32_t rank : {0, 1, 3}) {
    const Lost lost = Next<Lost>(*members_[rank]);
    EXPECT_EQ(lost.epoch, 1000u);
    EXPECT_EQ(lost.why.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(lost.why.message(), "group prefill-0: rank 2 has gone (its stream ended)");
    members_[rank]->Ready(1000, "again " + std::to_string(rank));
  }
  EXPECT_LT(SystemClock().Monotonic() - lost_at, absl::Seconds(5));
  members_[2] = Join(4, 2);
  MakeReady(*members_[2], "new");
  for (auto& member : members_) {
    const Formed formed = Next<Formed>(*member);
    EXPECT_EQ(formed.epoch, 1001u);
    EXPECT_THAT(formed.endpoint_addresses, ElementsAre("again 0", "again 1", "new", "again 3"));
  }
}

TEST_F(GroupServiceTest, ABrokenEndpointIsToldToAll) {
  Lead(LeaderOptions(2));
  JoinAll(2);
  // What is no UTF-8 would end the streams.
  members_[1]->Broken(1000, absl::DeadlineExceededError("combine: waited 5s for rank 0\xff"));
  for (auto& member : members_) {
    EXPECT_EQ(Next<Lost>(*member).why.message(),
              "group prefill-0: rank 1 has broken off: combine: waited 5s for rank 0?");
    member->Ready(1000, "again");
  }
  for (auto& member : members_) EXPECT_EQ(Next<Formed>(*member).epoch, 1001u);
}

TEST_F(GroupServiceTest, ALeaderThatComesBackFormsTheGroupUnderANewEpoch) {
  GroupServiceOptions options = LeaderOptions(2);
  const GroupServiceOptions again = [&] {
    GroupServiceOptions copy = options;
    // A clock that went back: the members know better.
    copy.roster.first_number = 500;
    return copy;
  }();
  Lead(std::move(options));
  JoinAll(2);
  leader_.reset();
  for (auto& member : members_) {
    const Lost lost = Next<Lost>(*member);
    EXPECT_EQ(lost.epoch, 1000u);
    EXPECT_THAT(std::string(lost.why.message()),
                HasSubstr("group prefill-0: the leader has gone ("));
  }
  Lead(again);
  for (auto& member : members_) MakeReady(*member, "again");
  for (auto& member : members_) EXPECT_EQ(Next<Formed>(*member).epoch, 1001u);
}

TEST_F(GroupServiceTest, ASecondProcessOfARankWaitsUntilTheFirstIsGone) {
  Lead(LeaderOptions(2));
  JoinAll(2);
  const auto second = Join(2, 1);
  const absl::Status waits = second->AwaitJoined(absl::Milliseconds(100)).status();
  EXPECT_EQ(waits.code(), absl::StatusCode::kDeadlineExceeded);
  members_[1].reset();
  MakeReady(*second, "second");
  Next<Lost>(*members_[0]);
  members_[0]->Ready(1000, "again");
  EXPECT_THAT(Next<Formed>(*second).endpoint_addresses, ElementsAre("again", "second"));
}

TEST_F(GroupServiceTest, AGroupThatIsNotCompleteInTimeIsGivenUp) {
  GroupServiceOptions options = LeaderOptions(4);
  options.clock = &clock_;
  options.roster.silence_max = absl::Hours(1);
  options.roster.join_max = absl::Minutes(10);
  Lead(std::move(options));
  const auto first = Join(4, 0);
  MakeReady(*first, "at 0");
  const auto second = Join(4, 1);
  MakeReady(*second, "at 1");
  while (!leader_->View().members[0].ready || !leader_->View().members[1].ready) ::sched_yield();
  clock_.Advance(absl::Minutes(10));
  for (GroupMember* member : {first.get(), second.get()}) {
    const absl::Status why = Next<Refused>(*member).why;
    EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ(why.message(), "group prefill-0: waited 10m for ranks 2, 3 of 4");
  }
}

TEST_F(GroupServiceTest, AMemberWithoutALeaderGivesUpInTime) {
  GroupMemberOptions options = MemberOptions(2, 1);
  options.leader = UniqueAddress();
  options.clock = &clock_;
  const auto member = Join(options);
  const absl::Status waits = member->AwaitJoined(absl::Milliseconds(1)).status();
  EXPECT_EQ(waits.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(waits.message()), HasSubstr("rank 1 has not joined at unix-abstract:"));
  clock_.Advance(absl::Minutes(10));
  EXPECT_THAT(std::string(Next<Refused>(*member).why.message()),
              HasSubstr("group prefill-0: rank 1 waited 10m for the leader at unix-abstract:"));
}

// A machine that is lost, or a process that is stopped, closes nothing.
TEST_F(GroupServiceTest, ASilentMemberIsLostAndASilentLeaderIsGivenUp) {
  GroupServiceOptions options = LeaderOptions(2);
  options.clock = &clock_;
  Lead(std::move(options));
  auto stub = Stub();
  grpc::ClientContext call;
  const auto silent = stub->Join(&call);
  v1::MemberMessage hello;
  hello.mutable_hello()->set_protocol_version(1);
  hello.mutable_hello()->set_group("prefill-0");
  hello.mutable_hello()->set_rank(1);
  hello.mutable_hello()->set_ranks(2);
  hello.mutable_hello()->set_incarnation(5);
  hello.mutable_hello()->set_model_digest("d1");
  hello.mutable_hello()->set_build("0.1");
  for (const GroupFact& fact : TermsOf(2).facts) {
    auto& added = *hello.mutable_hello()->add_facts();
    added.set_name(fact.name);
    added.set_value(fact.value);
  }
  ASSERT_TRUE(silent->Write(hello));
  v1::LeaderMessage answer;
  ASSERT_TRUE(silent->Read(&answer));
  EXPECT_TRUE(answer.has_welcome());
  clock_.Advance(absl::Seconds(6));
  while (silent->Read(&answer)) EXPECT_TRUE(answer.has_heartbeat());
  const grpc::Status over = silent->Finish();
  EXPECT_EQ(over.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(over.error_message(), "it was silent for 5s");
  // The leader's clock stands still now, so it says nothing: a member with little patience leaves.
  leader_.reset();
  options = LeaderOptions(2);
  options.clock = &clock_;
  options.roster.heartbeat = absl::Milliseconds(10);
  options.roster.silence_max = absl::Milliseconds(50);
  Lead(std::move(options));
  const auto member = Join(2, 0);
  Next<Joined>(*member);
  Next<Joined>(*member);  // it has left, and come again
}

TEST_F(GroupServiceTest, APlacementGoesToAllAndCountsComeBack) {
  Lead(LeaderOptions(2));
  JoinAll(2);
  auto stub = Stub();
  v1::PlaceExpertsRequest request;
  for (int layer = 0; layer < 2; ++layer) {
    v1::LayerSlots& slots = *request.add_layers();
    for (int slot = 0; slot < 8; ++slot) slots.add_expert_of_slot(7 - slot);
  }
  v1::PlaceExpertsReply reply;
  {
    grpc::ClientContext call;
    ASSERT_TRUE(stub->Place(&call, request, &reply).ok());
  }
  EXPECT_EQ(reply.placement_version(), 1001u);
  {
    grpc::ClientContext call;
    const grpc::Status again = stub->Place(&call, request, &reply);
    EXPECT_EQ(again.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_THAT(again.error_message(), HasSubstr("has not adopted placement 1001"));
  }
  for (auto& member : members_) {
    const NewPlacement place = Next<NewPlacement>(*member);
    EXPECT_EQ(place.placement.version, 1001u);
    EXPECT_EQ(place.placement.layers[0].expert_of_slot()[0], 7);
    member->Adopted(1001);
    member->ReportCounts({{4, 0, 0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1, 1, 1}});
  }
  // Counts go out with the next heartbeat.
  GroupView view = leader_->View();
  while (view.counts[0][0] < 8) {
    ::sched_yield();
    view = leader_->View();
  }
  v1::GroupDescription description;
  grpc::ClientContext call;
  ASSERT_TRUE(stub->Describe(&call, {}, &description).ok());
  EXPECT_EQ(description.group(), "prefill-0");
  EXPECT_EQ(description.epoch(), 1000u);
  ASSERT_EQ(description.members_size(), 2);
  EXPECT_TRUE(description.members(1).present() && description.members(1).ready());
  EXPECT_EQ(description.members(1).placement_version(), 1001u);
  EXPECT_EQ(description.placement().layers(1).expert_of_slot(0), 7);
  EXPECT_EQ(description.counts(0).tokens(0), 8u);
  EXPECT_THAT(description.imbalance(), ElementsAre(2.0, 1.0));
}

TEST_F(GroupServiceTest, AddressesThatDoNotWorkAreNamed) {
  Lead(LeaderOptions(2));
  GroupServiceOptions taken = LeaderOptions(2);
  taken.listen = leader_->address();
  const absl::Status twice = GroupService::Start(std::move(taken)).status();
  EXPECT_EQ(twice.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(twice.message()), HasSubstr(leader_->address()));
  GroupServiceOptions none = LeaderOptions(2);
  none.listen = "nowhere";
  EXPECT_EQ(GroupService::Start(std::move(none)).status().code(),
            absl::StatusCode::kInvalidArgument);
  GroupServiceOptions other = LeaderOptions(2);
  other.roster.terms.ranks = 4;
  EXPECT_THAT(std::string(GroupService::Start(std::move(other)).status().message()),
              HasSubstr("the placement is for 2 ranks, the group has 4"));
}

TEST_F(GroupServiceTest, CallsThatBreakTheRulesEnd) {
  Lead(LeaderOptions(2));
  v1::MemberMessage message;
  message.mutable_heartbeat();
  EXPECT_EQ(Ending(&message).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  message.mutable_counts()->add_layers()->add_tokens(UINT64_MAX);
  EXPECT_THAT(Ending(&message).error_message(), HasSubstr("tokens of an expert"));
  message.mutable_hello()->set_group(std::string(100'000, 'x'));
  const grpc::Status named = Ending(&message);
  EXPECT_EQ(named.error_code(), grpc::StatusCode::FAILED_PRECONDITION);  // the protocol version
  message.mutable_hello()->set_protocol_version(1);
  EXPECT_THAT(Ending(&message).error_message(), HasSubstr("100000 bytes, not 1 to 64"));
  message.mutable_ready()->set_endpoint_address(std::string(kMemberMessageBytesMax, 'x'));
  EXPECT_EQ(Ending(&message).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // None of it has hurt the leader.
  JoinAll(2);
}

TEST_F(GroupServiceTest, ACallThatSaysNothingEnds) {
  GroupServiceOptions options = LeaderOptions(2);
  options.hello_wait_max = absl::Milliseconds(20);
  Lead(std::move(options));
  EXPECT_EQ(Ending(nullptr).error_message(), "no Hello within 20ms");
}

}  // namespace
}  // namespace baleen::worker
