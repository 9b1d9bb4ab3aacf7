// The KvTransfer seam over UCX: RDMA where there is any, else TCP.
//
// One thread of its own owns the UCX worker and moves everything. It spins shortly while there is
// traffic and sleeps otherwise. Callers touch only the table of transfers, under a mutex that is
// never held over I/O.
//
// Data-plane messages are neither encrypted nor authenticated: the network between ranks must be
// private. Frames name transfers by random 64-bit ids that the router hands out over its own
// channel, and blocks by number, so a stranger can neither write memory nor end a transfer by
// sending frames: those are dropped and counted. But an offer may come before its Expect, and then
// nothing tells a stranger's from a peer's. It is parked for a lease; a stranger that invents
// enough peers can so take the places of all others (RESOURCE_EXHAUSTED), and push ended ids out of
// memory. Refusing it connects to the address that it names, whose bytes only UCX can check, and
// UCX trusts whoever speaks to it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "worker/kv_transfer/kv_transfer.h"
#include "worker/kv_transfer/protocol/transfer_table.h"
#include "worker/kv_transfer/ucx_worker.h"

namespace baleen::worker {

struct UcxKvTransferOptions {
  TransferLimits limits;
  // Runs the leases; null means SystemClock(). Borrowed.
  const Clock* clock = nullptr;
  // May be null. Called once when events have come, again after each Poll; on any thread, without
  // locks. Must not block.
  std::function<void()> wake;
};

class UcxKvTransfer final : public KvTransfer, private UcxSink {
 public:
  // INVALID_ARGUMENT (limits), FAILED_PRECONDITION (the transports that UCX may use do not do) or
  // UNAVAILABLE (UCX cannot start).
  static absl::StatusOr<std::unique_ptr<UcxKvTransfer>> Create(UcxKvTransferOptions options);
  // Gives up all transfers and tells the peers (within 200 ms), closes the connections and stops
  // the thread. No memory of a transfer is touched afterwards.
  ~UcxKvTransfer() override;

  std::string LocalAddress() const override { return address_; }
  absl::Status Expect(contract::TransferId id, std::vector<std::span<std::byte>> blocks) override;
  absl::Status Send(SendPart part) override;
  void Cancel(contract::TransferId id) override;
  std::vector<TransferEvent> Poll() override;

  // Frames that were dropped so far.
  DroppedFrames Dropped() const;
  // The transports of the first connection, for example "tcp/eth0.0"; empty before there was
  // one.
  std::string Lanes() const;

 private:
  explicit UcxKvTransfer(UcxKvTransferOptions options);

  // On the thread of its own.
  void Run();
  bool CarryOutActions();
  bool SendNextBlock();
  void Tick();
  void WakeIfEvents();
  void OnFrame(std::span<const std::byte> frame) override;
  std::optional<BlockToReceive> OnBlock(std::span<const std::byte> header,
                                        std::size_t length) override;
  void OnBlockReceived(const BlockToReceive& block, const absl::Status& status) override;
  void OnBlockSent(const BlockToSend& block, const absl::Status& status,
                   std::uint64_t checksum) override;
  void OnPeerLost(const std::string& peer, const absl::Status& why) override;

  absl::Duration Now() const { return clock_.Monotonic(); }

  const TransferLimits limits_;
  const Clock& clock_;
  const std::function<void()> wake_;
  std::string address_;

  mutable std::mutex mutex_;
  std::optional<TransferTable> table_;  // guarded by mutex_; set once by Create
  bool awake_ = false;                  // guarded by mutex_: wake_ was called and Poll not yet
  std::string lanes_;                   // guarded by mutex_

  std::unique_ptr<UcxWorker> worker_;  // of the thread, except Signal
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace baleen::worker
