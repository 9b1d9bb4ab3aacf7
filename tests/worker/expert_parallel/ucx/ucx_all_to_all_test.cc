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
  UcxTestGroup(const AllToAllShape& shape, std::string transports)
      : shape_(shape),
        transports_(std::move(transports)),
        addresses_(shape.ranks),
        all_have_addresses_(shape.ranks) {}

  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank) override {
    auto endpoint = PendingUcxEndpoint::Create({.shape = shape_,
                                                .rank = rank,
                                                .connect_max = absl::Seconds(30),
                                                .transports = transports_});
    EXPECT_TRUE(endpoint.ok()) << endpoint.status();
    addresses_[rank] = (*endpoint)->address();
    all_have_addresses_.arrive_and_wait();
    auto connected = (*endpoint)->ConnectUcx(1, addresses_);
    EXPECT_TRUE(connected.ok()) << connected.status();
    EXPECT_EQ((*connected)->mapped_peers(), transports_ == "tcp" ? 0 : shape_.ranks - 1);
    return *std::move(connected);
  }

 private:
  const AllToAllShape shape_;
  const std::string transports_;
  std::vector<std::string> addresses_;
  std::barrier<> all_have_addresses_;
};

GroupMaker Maker(std::string name, std::string transports) {
  return {.name = std::move(name),
          .make = [transports](const AllToAllShape& shape) -> std::unique_ptr<TestGroup> {
            return std::make_unique<UcxTestGroup>(shape, transports);
          }};
}

}  // namespace

std::vector<GroupMaker> Groups() { return {Maker("SharedMemory", ""), Maker("Tcp", "tcp")}; }

}  // namespace baleen::worker
