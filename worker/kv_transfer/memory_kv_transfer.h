// The in-memory twin of the KvTransfer seam: endpoints of one process, joined by a hub, with faults
// on demand.
//
// It runs the same protocol as the UCX implementation; only the wire differs. Nothing happens by
// itself: frames and blocks move when their receiver is polled, time is the given Clock, so a test
// or the simulator replays exactly. A transfer takes a few polls of both ends: offer, answer,
// blocks, closing part, verdict.
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

  // A new endpoint with an address of its own ("memory-1", "memory-2", ...). `limits` must pass
  // ValidateTransferLimits. `wake` (may be null) is called once there is something for Poll to do,
  // again after each Poll; on whichever thread brought it about, without locks. Leases that run out
  // do not wake. Destroying an endpoint tells its peers that its transfers are cancelled.
  std::unique_ptr<KvTransfer> Attach(const TransferLimits& limits,
                                     std::function<void()> wake = nullptr);

  // Faults. Addresses are those of LocalAddress(); unknown ones are ignored.
  // The process behind `address` dies: its endpoint falls silent, its peers' transfers with it fail
  // with UNAVAILABLE.
  void DropPeer(std::string_view address);
  // `address` refuses every offer from now on; an OK status ends this.
  void RefuseOffers(std::string_view address, const absl::Status& refusal);
  // One bit of each of the next `count` blocks that arrive anywhere flips on the way.
  void CorruptBlocks(std::uint32_t count);
  // While held, nothing moves between endpoints, and blocks that have begun to arrive do not
  // finish.
  void Hold(bool held);

  struct State;  // private to the implementation

 private:
  std::shared_ptr<State> state_;
};

}  // namespace baleen::worker
