// The in-memory twin of the KvTransfer seam: endpoints of one process, joined by a hub, with faults on demand.
//
// Nothing happens by itself: frames move when an endpoint is polled, time is the given Clock, so a test or the simulator replays
// exactly. A transfer needs a few polls of both ends: offer, answer, blocks, closing part, verdict.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "observability/base/clock.h"
#include "worker/kv_transfer/kv_transfer.h"

namespace baleen::worker {

// Thread-safe. Endpoints may outlive the hub object and each other.
class MemoryKvHub {
 public:
  // `clock` is borrowed and outlives every endpoint; it runs the leases.
  explicit MemoryKvHub(const Clock& clock);
  ~MemoryKvHub();

  // A new endpoint with an address of its own ("memory-1", "memory-2", ...). `wake` (may be null) is called, on any thread that polls,
  // when a call of Poll on this endpoint would have something to do; it must not call back into the endpoint or the hub.
  std::unique_ptr<KvTransfer> Attach(TransferLimits limits, std::function<void()> wake = nullptr);

  // Faults. Addresses are those of LocalAddress().
  // The process behind `address` dies: its endpoint falls silent, its peers' transfers with it fail with UNAVAILABLE.
  void DropPeer(std::string_view address);
  // `address` answers every offer from now on with `refusal`; an OK status ends this.
  void RefuseOffers(std::string_view address, absl::Status refusal);
  // One bit of each of the next `count` blocks to move flips on the way.
  void CorruptBlocks(std::uint32_t count);
  // While held, nothing moves between endpoints.
  void Hold(bool held);

  struct State;  // private to the implementation

 private:
  std::shared_ptr<State> state_;
};

}  // namespace baleen::worker
