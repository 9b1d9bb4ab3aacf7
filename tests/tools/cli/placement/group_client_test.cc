// The leader of a group as the command line asks it: a real one, and ones that answer nonsense.
#include "tools/cli/placement/group_client.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "proto/baleen/v1/group.grpc.pb.h"
#include "tools/cli/placement/report.h"
#include "worker/group/group_member.h"
#include "worker/group/group_service.h"

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kWithin = absl::Seconds(20);
constexpr worker::PlacementShape kShape = {.experts = 4, .ranks = 1, .redundant_experts = 0};

// A leader and its only rank, which is the test.
class RealGroup : public ::testing::Test {
 protected:
  void SetUp() override {
    const worker::GroupTerms terms{
        .group = "mixed-0", .ranks = 1, .model_digest = "d", .build = "b"};
    auto service = worker::GroupService::Start({.roster = {.terms = terms},
                                                .shape = kShape,
                                                .layers = ContiguousFor(kShape, 2).value().layers});
    ASSERT_TRUE(service.ok()) << service.status();
    service_ = *std::move(service);
    member_ = std::make_unique<worker::GroupMember>(
        worker::GroupMemberOptions{.leader = service_->address(),
                                   .terms = terms,
                                   .incarnation = 7,
                                   .experts = kShape.experts,
                                   .moe_layers = 2});
  }

  void Form() {
    ASSERT_TRUE(member_->Start().ok());
    const auto placement = member_->AwaitJoined(kWithin);
    ASSERT_TRUE(placement.ok()) << placement.status();
    member_->Ready(placement->version, "address");
    const auto formed = member_->NextEvent(kWithin);
    ASSERT_TRUE(formed && std::holds_alternative<worker::Formed>(*formed));
  }

  std::unique_ptr<worker::GroupService> service_;
  std::unique_ptr<worker::GroupMember> member_;
};

TEST_F(RealGroup, DescribesItselfBeforeItIsFormed) {
  const auto group = GroupClient(service_->address()).Describe(kWithin);
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ(group->group, "mixed-0");
  EXPECT_EQ(group->epoch, 0u);
  EXPECT_EQ(group->placement.shape.experts, 4);
  ASSERT_EQ(group->placement.layers.size(), 2u);
  EXPECT_EQ(group->placement.layers[1], worker::ContiguousPlacement(kShape));
  EXPECT_EQ(group->counts, worker::ExpertCounts({{0, 0, 0, 0}, {0, 0, 0, 0}}));
}

TEST_F(RealGroup, AdoptsAPlacementOnceItIsFormed) {
  const GroupClient client(service_->address());
  const auto wanted = BalancedFor(kShape, {{1, 2, 3, 4}, {4, 3, 2, 1}});
  ASSERT_TRUE(wanted.ok()) << wanted.status();
  const absl::Status early = client.Place(*wanted, kWithin).status();
  EXPECT_EQ(early.code(), absl::StatusCode::kFailedPrecondition) << early;
  EXPECT_THAT(std::string(early.message()),
              HasSubstr("leader " + service_->address() + ": FAILED_PRECONDITION: "));

  Form();
  const auto version = client.Place(*wanted, kWithin);
  ASSERT_TRUE(version.ok()) << version.status();
  const auto told = member_->NextEvent(kWithin);
  ASSERT_TRUE(told && std::holds_alternative<worker::NewPlacement>(*told));
  const auto& placement = std::get<worker::NewPlacement>(*told).placement;
  EXPECT_EQ(placement.version, *version);
  EXPECT_EQ(placement.layers, wanted->layers);
}

TEST(GroupClient, SaysWhichLeaderCanNotBeReached) {
  const std::string address = "unix-abstract:baleen-test-nobody-listens-here";
  const auto group = GroupClient(address).Describe(kWithin);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kUnavailable) << group.status();
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("leader " + address));
}

// Answers what the test wants.
class FakeLeader final : public v1::Group::Service {
 public:
  FakeLeader() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = fmt::format("127.0.0.1:{}", port);
  }

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeGroupRequest*,
                        v1::GroupDescription* reply) override {
    *reply = answer;
    return grpc::Status::OK;
  }

  const std::string& address() const { return address_; }

  v1::GroupDescription answer;

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// Two layers of two experts on one rank.
v1::GroupDescription GoodAnswer() {
  v1::GroupDescription answer;
  answer.set_group("mixed-0");
  answer.mutable_placement()->set_experts(2);
  answer.mutable_placement()->set_ranks(1);
  for (int layer = 0; layer < 2; ++layer) {
    auto& slots = *answer.mutable_placement()->add_layers();
    auto& counts = *answer.add_counts();
    for (const int expert : {0, 1}) {
      slots.add_expert_of_slot(expert);
      counts.add_tokens(expert);
    }
  }
  return answer;
}

TEST(GroupClient, AnAnswerThatDoesNotFitItselfIsRefused) {
  struct Case {
    std::function<void(v1::GroupDescription&)> spoil;
    const char* names;
  };
  FakeLeader leader;
  leader.answer = GoodAnswer();
  EXPECT_TRUE(GroupClient(leader.address()).Describe(kWithin).ok());
  for (const Case& c : std::vector<Case>{
           {[](auto& a) { a.clear_placement(); }, "number of experts"},
           {[](auto& a) { a.mutable_placement()->set_experts(0xffffffff); }, "number of experts"},
           {[](auto& a) { a.mutable_placement()->set_ranks(0x80000000); }, "number of ranks"},
           {[](auto& a) { a.mutable_placement()->set_redundant_experts(0xffffffff); },
            "redundant experts"},
           {[](auto& a) { a.mutable_placement()->clear_layers(); }, "0 layers"},
           {[](auto& a) { a.mutable_placement()->mutable_layers(1)->set_expert_of_slot(0, -1); },
            "expert"},
           {[](auto& a) { a.mutable_placement()->mutable_layers(1)->add_expert_of_slot(0); },
            "3 slots"},
           {[](auto& a) { a.mutable_counts()->RemoveLast(); }, "counts of 1 layers"},
           {[](auto& a) { a.mutable_counts(1)->add_tokens(1); }, "counts of MoE layer 1"},
           {[](auto& a) { a.mutable_counts(0)->set_tokens(0, ~0ull); }, "counts of MoE layer 0"}}) {
    leader.answer = GoodAnswer();
    c.spoil(leader.answer);
    const auto group = GroupClient(leader.address()).Describe(kWithin);
    EXPECT_EQ(group.status().code(), absl::StatusCode::kDataLoss) << c.names;
    EXPECT_THAT(std::string(group.status().message()), HasSubstr(c.names));
  }
}

}  // namespace
}  // namespace baleen::cli
