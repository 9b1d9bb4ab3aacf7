// The AllToAll over UCX under the conformance suite, with ranks that are threads: rows through
// shared memory, and as messages over TCP.
#include <gmock/gmock.h>

#include <barrier>

#include "tests/worker/expert_parallel/all_to_all_conformance.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"

namespace baleen::worker {
namespace {

class UcxTestGroup final : public TestGroup {
 public:
  UcxTestGroup(const AllToAllShape& shape, bool share_memory)
      : shape_(shape),
        share_memory_(share_memory),
        addresses_(shape.ranks),
        all_have_addresses_(shape.ranks) {}

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) override {
    auto endpoint = PendingUcxEndpoint::Create({.shape = shape_,
                                                .rank = rank,
                                                .connect_max = absl::Seconds(30),
                                                .share_memory = share_memory_});
    EXPECT_TRUE(endpoint.ok()) << endpoint.status();
    addresses_[rank] = (*endpoint)->address();
    all_have_addresses_.arrive_and_wait();
    auto connected = (*endpoint)->ConnectUcx(1, addresses_);
    EXPECT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ((*connected)->mapped_peers(), share_memory_ ? shape_.ranks - 1 : 0);
    return *std::move(connected);
  }

 private:
  const AllToAllShape shape_;
  const bool share_memory_;
  std::vector<std::string> addresses_;
  std::barrier<> all_have_addresses_;
};

GroupMaker Maker(std::string name, bool share_memory) {
  return {.name = std::move(name),
          .make = [share_memory](const AllToAllShape& shape) -> std::unique_ptr<TestGroup> {
            return std::make_unique<UcxTestGroup>(shape, share_memory);
          }};
}

}  // namespace

std::vector<GroupMaker> Groups() { return {Maker("SharedMemory", true), Maker("Messages", false)}; }

}  // namespace baleen::worker
