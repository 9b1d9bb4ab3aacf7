// The UCX implementation as a Fabric of the tests.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>

#include "tests/worker/kv_transfer/conformance.h"
#include "worker/kv_transfer/ucx_kv_transfer.h"

namespace baleen::worker {

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

inline FabricMaker OverUcx() {
  return {"Ucx", [] { return std::make_unique<UcxFabric>(); }};
}

}  // namespace baleen::worker
