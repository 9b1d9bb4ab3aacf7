// Both halves of the KV transfer protocol of one endpoint, and the rule between them. Pure: the
// same code runs over UCX and over the in-memory hub, which differ only in how frames and blocks
// travel.
//
// Its owner feeds it calls, frames, the fate of blocks and the time; then takes the actions (in
// order) and the blocks to send, and carries them out. Not thread-safe. `now` is any monotonic
// time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/kv_transfer/kv_transfer.h"
#include "worker/kv_transfer/protocol/frames.h"
#include "worker/kv_transfer/protocol/incoming_transfers.h"
#include "worker/kv_transfer/protocol/outbox.h"
#include "worker/kv_transfer/protocol/outgoing_transfers.h"

namespace baleen::worker {

// INVALID_ARGUMENT if an endpoint cannot be started with these.
absl::Status ValidateTransferLimits(const TransferLimits& limits);

// A block that arrives: what its header says, and where its bytes go.
struct BlockToReceive {
  BlockHeader header;
  std::span<std::byte> memory;
};

class TransferTable {
 public:
  // `limits` have been validated.
  TransferTable(const TransferLimits& limits, std::string local_address);
  TransferTable(const TransferTable&) = delete;
  TransferTable& operator=(const TransferTable&) = delete;

  // As in KvTransfer.
  absl::Status Expect(contract::TransferId id, std::vector<std::span<std::byte>> blocks,
                      absl::Duration now);
  absl::Status Send(SendPart part, absl::Duration now);
  void Cancel(contract::TransferId id, absl::Duration now);

  // A frame from a peer, untrusted.
  void OnFrame(std::span<const std::byte> frame, absl::Duration now);

  // A block of `length` bytes from a peer, with its header, both untrusted. nullopt: drop it. Else
  // EndBlock must follow.
  std::optional<BlockToReceive> BeginBlock(std::span<const std::byte> header, std::size_t length);
  void EndBlock(const BlockHeader& header, const absl::Status& received, std::uint64_t checksum,
                absl::Duration now);

  // The next block to put on its way, if any; OnBlockSent must follow.
  std::optional<BlockToSend> NextBlock() { return outgoing_.NextBlock(); }
  void OnBlockSent(const BlockToSend& block, const absl::Status& sent, std::uint64_t checksum,
                   absl::Duration now);

  // The connection to `peer` broke: its transfers fail with `why`.
  void OnPeerLost(std::string_view peer, const absl::Status& why, absl::Duration now);
  // Runs the leases. Cheap; call it every few milliseconds.
  void OnTick(absl::Duration now);
  // Gives up everything, telling the peers.
  void CancelAll(const absl::Status& why, absl::Duration now);

  std::vector<Action> TakeActions();
  std::vector<TransferEvent> TakeEvents();
  bool HasEvents() const { return !outbox_.events.empty(); }
  std::size_t size() const { return incoming_.size() + outgoing_.size(); }
  const DroppedFrames& dropped() const { return outbox_.dropped; }

 private:
  bool HasRoom() const { return size() < limits_.transfers_max; }

  const TransferLimits limits_;
  Outbox outbox_;
  IncomingTransfers incoming_;
  OutgoingTransfers outgoing_;
};

}  // namespace baleen::worker
