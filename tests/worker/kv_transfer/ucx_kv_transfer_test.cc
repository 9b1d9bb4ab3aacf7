// The UCX implementation: the conformance suite over the transports that UCX_TLS allows, and peers
// that lie.
#include "worker/kv_transfer/ucx_kv_transfer.h"

#include "tests/worker/kv_transfer/conformance.h"

namespace baleen::worker {
namespace {

class UcxFabric final : public Fabric {
 public:
  std::unique_ptr<KvTransfer> NewEndpoint(const TransferLimits& limits, const Clock& clock,
                                          std::function<void()> wake) override {
    auto endpoint =
        UcxKvTransfer::Create({.limits = limits, .clock = &clock, .wake = std::move(wake)});
    EXPECT_TRUE(endpoint.ok()) << endpoint.status();
    return *std::move(endpoint);
  }
};

const FabricMaker kUcx = {"Ucx", [] { return std::make_unique<UcxFabric>(); }};

}  // namespace

std::vector<FabricMaker> Fabrics() { return {kUcx}; }

}  // namespace baleen::worker
