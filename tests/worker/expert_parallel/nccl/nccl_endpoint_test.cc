// NcclEndpoint over a fake of NCCL and CUDA: the conformance suite, and what is its own.
#include "worker/expert_parallel/nccl/nccl_endpoint.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "tests/worker/expert_parallel/all_to_all_conformance.h"
#include "tests/worker/expert_parallel/nccl/fake_collectives.h"
#include "worker/expert_parallel/loopback_all_to_all.h"

namespace baleen::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The device memory of each rank is a block of its own, so that ASan sees its ends.
class NcclTestGroup final : public TestGroup {
 public:
  explicit NcclTestGroup(const AllToAllShape& shape)
      : shape_(shape),
        host_(LoopbackGroup::Make(HostShape(shape)).value()),
        network_(shape.ranks),
        memory_(shape.ranks) {}

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) override { return Join(rank, nullptr); }

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank, ExchangeMeter* meter) {
    const std::size_t bytes = NcclBufferBytes(shape_);
    memory_[rank].reset(static_cast<std::byte*>(std::aligned_alloc(256, bytes)));
    return std::make_unique<NcclEndpoint>(
        shape_,
        NcclEndpoint::Parts{.rank = rank,
                            .host = host_->Join(rank),
                            .collectives = network_.Join(rank, {memory_[rank].get(), bytes}),
                            .buffers = memory_[rank].get(),
                            .meter = meter});
  }

  // The host side alone: a rank that says by hand what an endpoint would.
  std::unique_ptr<GroupEndpoint> JoinHost(std::int32_t rank) { return host_->Join(rank); }
  FakeNetwork& network() { return network_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };

  const AllToAllShape shape_;
  const std::unique_ptr<LoopbackGroup> host_;
  FakeNetwork network_;
  std::vector<std::unique_ptr<std::byte, Free>> memory_;
};

}  // namespace

std::vector<GroupMaker> Groups() {
  return {{.name = "NcclOverAFake",
           .make = [](const AllToAllShape& shape) -> std::unique_ptr<TestGroup> {
             return std::make_unique<NcclTestGroup>(shape);
           }}};
}

namespace {

constexpr AllToAllShape kShape{.ranks = 2,
                               .slots_per_rank = 2,
                               .slots_per_row = 2,
                               .row_bytes = 4,
                               .output_bytes = 2,
                               .rows_max = 3,
                               .wait_max = absl::Seconds(30)};

// Rank 0 is an endpoint that brings no rows, rank 1 the host side of one.
struct OneByHand {
  explicit OneByHand(const AllToAllShape& shape = kShape)
      : group(shape), endpoint(group.Join(0)), by_hand(group.JoinHost(1)) {}

  // What rank 0 makes of rows that rank 1 says to send to its expert slots.
  absl::Status Hear(std::vector<ControlRow> said, const std::vector<std::int32_t>& slots) {
    Say(std::move(said), slots);
    return endpoint->FinishDispatch(0).status();
  }

  void Say(std::vector<ControlRow> said, const std::vector<std::int32_t>& slots) {
    EXPECT_TRUE(by_hand
                    ->StartDispatch(0, {.count = static_cast<std::int64_t>(said.size()),
                                        .x = reinterpret_cast<const std::byte*>(said.data()),
                                        .slots = slots.data()})
                    .ok());
    EXPECT_TRUE(endpoint->StartDispatch(0, {}).ok());
  }

  NcclTestGroup group;
  std::unique_ptr<GroupEndpoint> endpoint;
  std::unique_ptr<GroupEndpoint> by_hand;
};

constexpr ControlRow kFirst{.epoch = 0, .dispatch = 1, .source = 1, .row = 0};
constexpr ControlRow kSecond{.epoch = 0, .dispatch = 1, .source = 1, .row = 1};

TEST(NcclEndpoint, BelievesNothingThatAPeerSaysBeforeItIsChecked) {
  const auto but = [](auto change) {
    ControlRow row = kSecond;
    change(row);
    return row;
  };
  const struct {
    ControlRow second;
    const char* says;
  } cases[] = {
      {but([](auto& r) { r.epoch = 8; }),
       "rank 1 is in epoch 8 dispatch 1 of lane 0, this rank 0 in epoch 0 dispatch 1"},
      {but([](auto& r) { r.dispatch = 2; }),
       "rank 1 is in epoch 0 dispatch 2 of lane 0, this rank"},
      {but([](auto& r) { r.source = 2; }), "says that it is of rank 2, not 1 to 1"},
      {but([](auto& r) { r.source = 0; }), "says that it is of rank 0, not 1 to 1"},
      {but([](auto& r) { r.source = -1; }), "says that it is of rank -1, not 1 to 1"},
      {but([](auto& r) { r.row = 3; }), "rank 1 sends row 3 in the dispatch, not 1 to 2"},
      {but([](auto& r) { r.row = 0; }), "rank 1 sends row 0 in the dispatch, not 1 to 2"},
      {but([](auto& r) { r.row = -5; }), "rank 1 sends row -5 in the dispatch, not 1 to 2"},
  };
  for (const auto& c : cases) {
    OneByHand ranks;
    const absl::Status status = ranks.Hear({kFirst, c.second}, {0, 1, 0, 1});
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.ToString(), HasSubstr(c.says));
    EXPECT_EQ(ranks.endpoint->StartCombine(0), status) << "broken";
    EXPECT_THAT(ranks.group.network().AskedOf(0), ElementsAre()) << "nothing was received";
  }
}

// Whatever a peer says, nothing is read or written beyond its place (ASan), and a call ends.
TEST(NcclEndpoint, NonsenseOfAPeerEndsInAnError) {
  AllToAllShape shape = kShape;
  shape.wait_max = absl::Milliseconds(1);
  std::mt19937 random(7);
  for (int i = 0; i < 300; ++i) {
    OneByHand ranks(shape);
    std::vector<ControlRow> said(1 + random() % shape.rows_max);
    std::vector<std::int32_t> slots;
    for (ControlRow& row : said) {
      const std::int32_t wild = static_cast<std::int32_t>(random());
      row = {.epoch = random() % 4 == 0 ? random() : 0,
             .dispatch = random() % 4 == 0 ? random() : 1,
             .source = random() % 4 == 0 ? wild : 1,
             .row = random() % 4 == 0 ? wild : static_cast<std::int32_t>(random() % 4)};
      for (int slot = 0; slot < shape.slots_per_row; ++slot) slots.push_back(random() % 2);
    }
    // Rows that make sense are waited for.
    const absl::Status status = ranks.Hear(said, slots);
    EXPECT_TRUE(absl::IsFailedPrecondition(status) || absl::IsDeadlineExceeded(status)) << status;
  }
}

// Slots that are not distinct could make more entries than there is room for outputs.
TEST(NcclEndpoint, RefusesMoreEntriesThanItHasRoomFor) {
  AllToAllShape shape = kShape;
  shape.slots_per_rank = 1;
  OneByHand ranks(shape);
  const absl::Status status =
      ranks.Hear({kFirst, kSecond}, {0, 0, 0, 0});  // 4 entries, room for 3 of a rank
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 1 sends more than 3 entries in the dispatch"));
}

// NCCL does not say who keeps it waiting.
TEST(NcclEndpoint, AWaitForNcclEndsAndNamesWhoItMayBe) {
  AllToAllShape shape = kShape;
  shape.wait_max = absl::Milliseconds(30);
  OneByHand ranks(shape);
  const absl::Status status = ranks.Hear({kFirst}, {0, 1});
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.ToString(),
              HasSubstr("waited 30ms in the dispatch with rank 1; NCCL does not say for which"));
}

// The host side knows of a peer that has gone long before NCCL does.
TEST(NcclEndpoint, APeerThatGoesIsSeenWithinAWaitForNccl) {
  OneByHand ranks;
  std::jthread other([&] {
    ranks.group.network().AwaitLimits(0, 1);
    ranks.by_hand.reset();
  });
  const absl::Status status = ranks.Hear({kFirst}, {0, 1});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 1 has gone"));
  EXPECT_THAT(status.ToString(), HasSubstr("while this rank was in the dispatch"));
}

TEST(NcclEndpoint, AnAbortEndsAWaitForNccl) {
  OneByHand ranks;
  const absl::Status why = absl::UnavailableError("rank 1 has left the group");
  std::jthread other([&] {
    ranks.group.network().AwaitLimits(0, 1);
    ranks.endpoint->Abort(why);
  });
  EXPECT_EQ(ranks.Hear({kFirst}, {0, 1}), why);
  EXPECT_EQ(ranks.endpoint->OpenStep({}).status(), why) << "broken";
}

TEST(NcclEndpoint, AnErrorOfNcclNamesThePhaseAndTheRanks) {
  OneByHand ranks;
  ranks.group.network().Send(1, 0, 0, std::vector<std::byte>(7));
  const absl::Status status = ranks.Hear({kFirst}, {0, 1});
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(status.ToString(), HasSubstr("sent 7 bytes"));
  EXPECT_THAT(status.ToString(), HasSubstr("in the dispatch with rank 1"));
}

// Within a wait for NCCL the host side is asked for peers that have gone, which uses up its note of
// an interrupt: the sleep after it would last.
TEST(NcclEndpoint, AnInterruptWithinAWaitForNcclIsKeptForTheSleep) {
  OneByHand ranks;
  std::jthread other([&] {
    ranks.endpoint->Interrupt();
    ranks.group.network().AwaitLimits(0, 2);
    ranks.group.network().Send(1, 0, 0, std::vector<std::byte>(kShape.row_bytes));
  });
  EXPECT_TRUE(ranks.Hear({kFirst}, {0, 1}).ok());
  const absl::StatusOr<bool> waited_for = ranks.endpoint->AwaitPeers(absl::Hours(1));
  ASSERT_TRUE(waited_for.ok()) << waited_for.status();
  EXPECT_FALSE(*waited_for);
}

// One rank, a layer without rows and one with: what the device is asked, and counted.
TEST(NcclEndpoint, AsksTheDeviceForNoMoreThanItNeeds) {
  AllToAllShape shape = kShape;
  shape.ranks = 1;
  NcclTestGroup group(shape);
  ExchangeMeter meter(1);
  const auto endpoint = group.Join(0, &meter);
  const std::vector<std::byte> x(2 * shape.row_bytes, std::byte{9});
  const std::vector<std::int32_t> slots = {0, 1, 1, 0};
  for (const std::int64_t rows : {0, 2}) {
    const std::size_t asked = group.network().AskedOf(0).size();
    EXPECT_EQ(asked, 0u) << "nothing for a layer without rows";
    ASSERT_TRUE(
        endpoint->StartDispatch(0, {.count = rows, .x = x.data(), .slots = slots.data()}).ok());
    const auto arrived = endpoint->FinishDispatch(0);
    ASSERT_TRUE(arrived.ok()) << arrived.status();
    EXPECT_EQ(arrived->entries.size(), 2u * rows);
    std::memset(arrived->outputs, 3, arrived->entries.size() * shape.output_bytes);
    ASSERT_TRUE(endpoint->StartCombine(0).ok());
    ASSERT_TRUE(endpoint->FinishCombine(0).ok());
  }
  // The model's stream is followed where its results go out, not where those of peers come in:
  // that would wait for what the model computes meanwhile.
  EXPECT_THAT(group.network().AskedOf(0),
              ElementsAre("follow model", "gather 2 rows", "exchange", "follow model", "exchange",
                          "scatter 4 rows"));
  EXPECT_EQ(meter.Read(ExchangePhase::kDispatch, 0).bytes, 2 * shape.row_bytes);
  EXPECT_EQ(meter.Read(ExchangePhase::kCombine, 0).bytes, 4 * shape.output_bytes);
}

}  // namespace
}  // namespace baleen::worker
