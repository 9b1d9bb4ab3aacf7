// GroupRuntime between a real membership and what stands for its engine: endpoints come and go with
// epochs, experts move while the group serves.
#include "worker/group/runtime/group_runtime.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "proto/baleen/v1/group.grpc.pb.h"
#include "tests/fakes/fake_expert_host.h"
#include "tests/worker/group/group_test_util.h"
#include "worker/expert_parallel/loopback_all_to_all.h"
#include "worker/group/group_service.h"
#include "worker/group/runtime/group_reports.h"

namespace baleen::worker {
namespace {

using testing::HasSubstr;

constexpr std::uint32_t kRanks = 2;
constexpr absl::Duration kLimit = absl::Seconds(60);

// Where endpoints of one epoch meet. Outlives them. Thread-safe.
class Hub {
 public:
  std::shared_ptr<GroupEndpoint> Join(std::uint64_t epoch, std::int32_t rank) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<LoopbackGroup>& group = groups_[epoch];
    if (group == nullptr) {
      group = LoopbackGroup::Make({.ranks = kRanks,
                                   .slots_per_rank = 4,
                                   .row_bytes = 2,
                                   .output_bytes = 2,
                                   .rows_max = 1})
                  .value();
    }
    return group->Join(rank);
  }

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, std::unique_ptr<LoopbackGroup>> groups_;
};

class PendingLoopback final : public PendingEndpoint {
 public:
  PendingLoopback(Hub& hub, std::int32_t rank)
      : hub_(hub), rank_(rank), address_("at " + std::to_string(rank)) {}
  const std::string& address() const override { return address_; }
  absl::StatusOr<std::shared_ptr<GroupEndpoint>> Connect(
      std::uint64_t epoch, std::span<const std::string> addresses) override {
    EXPECT_EQ(addresses[rank_], address_);
    return hub_.Join(epoch, rank_);
  }

 private:
  Hub& hub_;
  const std::int32_t rank_;
  const std::string address_;
};

// A rank whose engine is the test.
struct TestRank {
  TestRank(Hub& hub, GroupMemberOptions options)
      : rank(static_cast<std::int32_t>(options.rank)), hub_(hub), runtime(std::move(options)) {}

  // Joins and runs; the experts are those of the placement that the leader says.
  void Join() {
    ASSERT_TRUE(runtime.Join().ok());
    absl::StatusOr<GroupPlacement> placement = AwaitJoined();
    ASSERT_TRUE(placement.ok()) << placement.status();
    runtime.Run(*std::move(placement),
                {.experts = experts,
                 .inbox = inbox,
                 .make_endpoint = [this] { return std::make_unique<PendingLoopback>(hub_, rank); },
                 .on_failed = [this](const absl::Status&) { ++failures; }});
  }
  absl::StatusOr<GroupPlacement> AwaitJoined() {
    std::optional<absl::StatusOr<GroupPlacement>> joined;
    while (!joined.has_value()) {
      joined = runtime.TakeJoined();
      ::sched_yield();
    }
    return *std::move(joined);
  }
  // Waits, as an engine does, until `condition` holds.
  template <typename Condition>
  void Await(Condition condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) inbox.WaitFor(kLimit / 1000);
    EXPECT_TRUE(condition());
  }
  void AwaitFormed() {
    Await([this] {
      if (std::optional<FormedGroup> next = runtime.TakeFormed()) formed = *std::move(next);
      return formed.endpoint != nullptr;
    });
  }
  // As an engine whose step has failed, or that was told so.
  void LetGo() {
    why_lost = formed.endpoint->OpenStep({.epoch = formed.epoch}).status();
    const std::uint64_t epoch = formed.epoch;
    formed = {};
    runtime.OnBroken(epoch, why_lost);
  }

  const std::int32_t rank;
  Hub& hub_;
  std::atomic<int> failures = 0;
  FakeExpertHost experts{2, 8};
  Inbox inbox{InboxLimits{}};
  FormedGroup formed;
  absl::Status why_lost;
  GroupRuntime runtime;
};

class GroupRuntimeTest : public testing::Test {
 protected:
  GroupRuntimeTest() {
    leader_ = GroupService::Start(
                  {.listen = "unix-abstract:baleen-runtime-test-" + std::to_string(::getpid()),
                   .roster = {.terms = TermsOf(kRanks), .first_number = 1000},
                   .shape = ShapeOf(kRanks),
                   .layers = LayersOf(kRanks),
                   .tick = absl::Milliseconds(5)})
                  .value();
    stub_ = v1::Group::NewStub(
        grpc::CreateChannel(leader_->address(), grpc::InsecureChannelCredentials()));
  }
  GroupMemberOptions OptionsOf(std::uint32_t rank) {
    return {.leader = leader_->address(),
            .terms = TermsOf(kRanks),
            .rank = rank,
            .incarnation = ++incarnation_,
            .experts = 8,
            .moe_layers = 2,
            .backoff = {.first = absl::Milliseconds(1), .longest = absl::Milliseconds(20)}};
  }
  std::unique_ptr<TestRank> Rank(std::uint32_t rank) {
    auto made = std::make_unique<TestRank>(hub_, OptionsOf(rank));
    made->Join();
    return made;
  }
  // Every expert in the other order, in both layers.
  void PlaceReversed() {
    v1::PlaceExpertsRequest request;
    for (int layer = 0; layer < 2; ++layer) {
      v1::LayerSlots& slots = *request.add_layers();
      for (int expert = 7; expert >= 0; --expert) slots.add_expert_of_slot(expert);
    }
    grpc::ClientContext context;
    v1::PlaceExpertsReply reply;
    const grpc::Status status = stub_->Place(&context, request, &reply);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }

  Hub hub_;
  std::unique_ptr<GroupService> leader_;
  std::unique_ptr<v1::Group::Stub> stub_;
  std::uint64_t incarnation_ = 0;
};

TEST_F(GroupRuntimeTest, FormsAgainWhenARankIsBack) {
  auto a = Rank(0);
  auto b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  const std::uint64_t epoch = a->formed.epoch;
  EXPECT_EQ(b->formed.epoch, epoch);
  EXPECT_TRUE(a->runtime.Outcome().value().ok());

  b->formed = {};
  b.reset();
  a->Await([&] { return !a->formed.endpoint->AwaitPeers(absl::ZeroDuration()).ok(); });
  a->LetGo();
  EXPECT_THAT(std::string(a->why_lost.message()),
              testing::AnyOf(HasSubstr("rank 1 has gone"), HasSubstr("has gone, in the")));

  b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  EXPECT_GT(a->formed.epoch, epoch);
  EXPECT_EQ(b->formed.epoch, a->formed.epoch);
}

TEST_F(GroupRuntimeTest, AnEndpointThatBreaksIsReplaced) {
  auto a = Rank(0);
  auto b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  const std::uint64_t epoch = a->formed.epoch;
  a->formed.endpoint->Abort(absl::InternalError("something broke"));
  a->LetGo();
  b->Await([&] { return !b->formed.endpoint->AwaitPeers(absl::ZeroDuration()).ok(); });
  b->LetGo();
  a->AwaitFormed();
  b->AwaitFormed();
  EXPECT_GT(a->formed.epoch, epoch);
}

// Layer after layer: the next one is prepared when the engine has adopted the last.
TEST_F(GroupRuntimeTest, ANewPlacementIsAdoptedLayerByLayer) {
  auto a = Rank(0);
  auto b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  PlaceReversed();
  for (std::uint32_t change = 1; change <= 2; ++change) {
    for (TestRank* rank : {a.get(), b.get()}) {
      rank->Await([&] { return rank->runtime.Prepared() == change; });
      rank->runtime.Adopt();
    }
  }
  for (TestRank* rank : {a.get(), b.get()}) {
    const std::vector<FakeExpertHost::Change> adopted = rank->experts.adopted();
    ASSERT_EQ(adopted.size(), 2u);
    EXPECT_EQ(adopted[0].first, 0);
    EXPECT_EQ(adopted[1].first, 1);
    EXPECT_EQ(adopted[1].second.expert_of_slot().front(), 7);
  }
  a->Await([&] {
    const GroupView view = leader_->View();
    return view.members[0].placement_version == view.placement.version &&
           view.members[1].placement_version == view.placement.version &&
           view.placement.version > 1000;
  });
}

// A group that is lost half-way through forms again with the whole of the new placement: ranks may
// have got differently far.
TEST_F(GroupRuntimeTest, AnInterruptedPlacementIsLoadedBeforeTheNextEpoch) {
  auto a = Rank(0);
  auto b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  PlaceReversed();
  a->Await([&] { return a->runtime.Prepared() == 1; });
  b->Await([&] { return b->runtime.Prepared() == 1; });
  a->runtime.Adopt();  // b does not
  a->formed.endpoint->Abort(absl::InternalError("something broke"));
  a->LetGo();
  b->Await([&] { return !b->formed.endpoint->AwaitPeers(absl::ZeroDuration()).ok(); });
  b->LetGo();
  a->AwaitFormed();
  b->AwaitFormed();
  EXPECT_EQ(a->experts.adopted().size(), 2u);
  EXPECT_EQ(b->experts.adopted().size(), 2u);
  EXPECT_EQ(a->runtime.Prepared(), 0u) << "counted in each epoch";
}

TEST_F(GroupRuntimeTest, WhatCanNotBeLoadedEndsTheRank) {
  auto a = Rank(0);
  auto b = Rank(1);
  a->AwaitFormed();
  b->AwaitFormed();
  a->experts.FailPrepares(absl::ResourceExhaustedError("not enough memory"));
  PlaceReversed();
  a->Await([&] { return a->failures == 1; });
  EXPECT_EQ(a->runtime.Outcome(), absl::ResourceExhaustedError("not enough memory"));
  a->LetGo();
}

TEST_F(GroupRuntimeTest, ARankOfAnotherModelIsRefusedWithTheReason) {
  GroupMemberOptions options = OptionsOf(1);
  options.terms.model_digest = "another";
  TestRank rank(hub_, options);
  ASSERT_TRUE(rank.runtime.Join().ok());
  EXPECT_THAT(rank.AwaitJoined().status().ToString(), HasSubstr("another"));
}

// A step names the peer that it waited for longest, and counts what was sent and waited, by peer.
TEST(GroupReports, SayWhomAStepWaitedForLongest) {
  metrics::Registry registry;
  ExchangeMeter meter(3);
  GroupReports reports(TermsOf(3), 0, 2, meter, registry);
  meter.AddWait(ExchangePhase::kStepBarrier, 1, absl::Seconds(2));
  meter.AddWait(ExchangePhase::kDispatch, 2, absl::Seconds(1));
  meter.AddWait(ExchangePhase::kCombine, 2, absl::Seconds(1.5));
  meter.AddWait(ExchangePhase::kCombine, 0, absl::Seconds(9));
  meter.AddBytes(ExchangePhase::kDispatch, 1, 700);
  reports.OnStep();
  meter.AddWait(ExchangePhase::kDispatch, 1, absl::Seconds(1));
  reports.OnStep();
  reports.OnStep();  // without any wait
  reports.OnFormed(77, 5);
  reports.Show({.members = {{.present = true}, {}, {.present = true}}, .imbalance = {1.5, 1.25}});
  const std::string page = registry.Text();
  for (const char* line :
       {"baleen_worker_steps_waited_longest_total{peer=\"prefill-0.0\"} 0",
        "baleen_worker_steps_waited_longest_total{peer=\"prefill-0.1\"} 1",
        "baleen_worker_steps_waited_longest_total{peer=\"prefill-0.2\"} 1",
        "wait_seconds_total{peer=\"prefill-0.2\",phase=\"combine\"} 1.5",
        "wait_seconds_total{peer=\"prefill-0.1\",phase=\"step_barrier\"} 2",
        "bytes_total{peer=\"prefill-0.1\",phase=\"dispatch\"} 700", "group_epoch 77",
        "group_epochs_total 1", "group_ranks 3", "group_ranks_present 2", "placement_version 5",
        "expert_imbalance{layer=\"1\"} 1.25"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

}  // namespace
}  // namespace baleen::worker
