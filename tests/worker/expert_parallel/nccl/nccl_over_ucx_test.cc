// NcclEndpoint as a group makes it: UCX goes along, over shared memory; NCCL and CUDA are a fake.
#include <gmock/gmock.h>

#include <barrier>
#include <vector>

#include "tests/worker/expert_parallel/all_to_all_conformance.h"
#include "tests/worker/expert_parallel/nccl/fake_collectives.h"
#include "worker/expert_parallel/nccl/pending_nccl_endpoint.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"

namespace baleen::worker {
namespace {

// Rank 0's id must reach all.
const std::string kId = std::string("an id of NCCL") + std::string(kNcclIdBytes - 13, '.');

class UcxAndFakeNccl final : public TestGroup {
 public:
  explicit UcxAndFakeNccl(const AllToAllShape& shape)
      : shape_(shape),
        network_(shape.ranks),
        memory_(shape.ranks),
        addresses_(shape.ranks),
        all_have_addresses_(shape.ranks) {}

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) override {
    auto pending = Pend(rank);
    EXPECT_TRUE(pending.ok()) << pending.status();
    addresses_[rank] = (*pending)->address();
    all_have_addresses_.arrive_and_wait();
    auto connected = (*pending)->ConnectNccl(1, addresses_);
    EXPECT_TRUE(connected.ok()) << connected.status();
    return *std::move(connected);
  }

  absl::StatusOr<std::unique_ptr<PendingNcclEndpoint>> Pend(std::int32_t rank) {
    auto host = PendingUcxEndpoint::Create(
        {.shape = HostShape(shape_), .rank = rank, .connect_max = absl::Seconds(30)});
    if (!host.ok()) return host.status();
    return PendingNcclEndpoint::Create(
        {.shape = shape_,
         .rank = rank,
         .host = *std::move(host),
         .make_id = [] { return kId; },
         .join = [this, rank](const std::string& id) { return JoinFake(rank, id); }});
  }

 private:
  absl::StatusOr<JoinedNccl> JoinFake(std::int32_t rank, const std::string& id) {
    EXPECT_EQ(id, kId);
    memory_[rank].resize(NcclBufferBytes(shape_) + 64);
    std::byte* const buffers =
        memory_[rank].data() + (64 - reinterpret_cast<std::uintptr_t>(memory_[rank].data()) % 64);
    return JoinedNccl{.collectives = network_.Join(rank, {buffers, NcclBufferBytes(shape_)}),
                      .buffers = buffers};
  }

  const AllToAllShape shape_;
  FakeNetwork network_;
  std::vector<std::vector<std::byte>> memory_;
  std::vector<std::string> addresses_;
  std::barrier<> all_have_addresses_;
};

}  // namespace

std::vector<GroupMaker> Groups() {
  return {{.name = "NcclOverAFakeWithUcx",
           .make = [](const AllToAllShape& shape) -> std::unique_ptr<TestGroup> {
             return std::make_unique<UcxAndFakeNccl>(shape);
           }}};
}

namespace {

TEST(PendingNcclEndpoint, NamesARankWhoseAddressIsNone) {
  UcxAndFakeNccl group({.ranks = 2,
                        .slots_per_rank = 1,
                        .slots_per_row = 1,
                        .row_bytes = 2,
                        .output_bytes = 2,
                        .rows_max = 1});
  const auto pending = group.Pend(0);
  ASSERT_TRUE(pending.ok()) << pending.status();
  const auto connected =
      (*pending)->Connect(1, std::vector<std::string>{(*pending)->address(), "short"});
  EXPECT_EQ(connected.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(connected.status().ToString(),
              testing::HasSubstr("the address of rank 1 has 5 bytes, not 128 or more"));
}

}  // namespace
}  // namespace baleen::worker
