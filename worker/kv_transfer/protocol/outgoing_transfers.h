// The sending half of the KV transfer protocol: a state machine without threads, clocks or I/O.
//
//   Send -> offered --ready--> open --all blocks gone--> closed --handed over--> kHandedOver
//   any of these --refused, lease, cancel, peer lost--> given up --no block in flight--> kFailed
//
// Not thread-safe. `now` is any monotonic time; it never goes backwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "worker/kv_transfer/kv_transfer.h"
#include "worker/kv_transfer/protocol/frames.h"
#include "worker/kv_transfer/protocol/outbox.h"

namespace baleen::worker {

// Blocks of one transfer that may be on their way at once. Eight keep the data plane busy
// (measured); more only grow its queues.
inline constexpr std::uint32_t kBlocksInFlightMax = 8;

struct BlockToSend {
  contract::TransferId id;
  std::uint32_t number = 0;
  std::span<const std::byte> block;
  std::string peer;
};

class OutgoingTransfers {
 public:
  // Both are borrowed and outlive this object.
  OutgoingTransfers(const TransferLimits& limits, std::string local_address, Outbox& outbox);

  // As KvTransfer::Send; `room` says whether one more transfer may begin.
  absl::Status Send(SendPart part, bool room, absl::Duration now);
  void Cancel(contract::TransferId id, absl::Duration now);

  void OnReady(const ReadyFrame& ready, absl::Duration now);
  void OnHandedOver(const HandedOverFrame& handed_over);
  void OnFailed(const FailedFrame& failed, absl::Duration now);

  // The next block to put on its way, each transfer in its turn; nullopt when none may go now.
  // OnBlockSent must follow.
  std::optional<BlockToSend> NextBlock();
  // The block's memory is not read any more. `checksum` is what its header said.
  void OnBlockSent(contract::TransferId id, std::uint32_t number, const absl::Status& sent,
                   std::uint64_t checksum, absl::Duration now);

  // The connection to `peer` is closed. `tell`: the peer may be alive, let it know.
  void OnPeerLost(std::string_view peer, const absl::Status& why, bool tell, absl::Duration now);
  void OnTick(absl::Duration now);
  // Gives up everything and tells the peers.
  void CancelAll(const absl::Status& why, absl::Duration now);

  std::size_t size() const { return transfers_.size(); }

 private:
  struct Waiting {
    std::uint32_t number = 0;
    std::span<const std::byte> block;
  };
  struct Closing {
    std::uint32_t blocks_total = 0;
    std::string manifest;
    bool sent = false;
  };
  struct Transfer {
    std::string peer;
    std::deque<Waiting> waiting;
    std::vector<bool> given;               // by block number: Send has brought it
    std::vector<std::uint64_t> checksums;  // by block number: of the blocks that have gone
    std::uint32_t blocks_in_flight = 0;
    std::uint32_t blocks_sent = 0;
    std::optional<std::uint32_t> blocks_reserved;  // by the receiver, once it is ready
    std::optional<Closing> closing;
    absl::Duration deadline;  // of the lease, or of the grace once given up
    absl::Status given_up;    // not OK: ends with this once no block is in flight
    bool closing_peer = false;
  };
  using Transfers = std::map<contract::TransferId, Transfer>;

  absl::Status CheckPart(const SendPart& part, const Transfer* transfer) const;
  void CloseIfAllSent(Transfers::iterator entry);
  void GiveUp(Transfers::iterator entry, const absl::Status& why, bool tell, absl::Duration now);
  void EndIfIdle(Transfers::iterator entry);
  void CountMissing(contract::TransferId id);

  const TransferLimits& limits_;
  const std::string local_address_;
  Outbox& outbox_;
  Transfers transfers_;
  contract::TransferId served_last_;  // by NextBlock
  EndedTransfers ended_;
};

}  // namespace baleen::worker
