// The receiving half of the KV transfer protocol: a state machine without threads, clocks or I/O.
//
//   offer --> parked ----Expect--> open ----blocks and closing frame---> verified: kReceived
//   Expect -> expected --offer---> open ----lease, cancel, damage------> given up
//   parked ----lease, withdrawn, peer lost, no room----> refused: a later Expect fails at once
//   given up --no block in flight--> kFailed
//
// Places for parked offers are shared fairly among the peers that they name. Nothing vouches for an
// offer, its peer included, before Expect has named its id.
//
// Not thread-safe. `now` is any monotonic time; it never goes backwards.
#pragma once

#include <cstddef>
#include <cstdint>
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

class IncomingTransfers {
 public:
  // Both are borrowed and outlive this object.
  IncomingTransfers(const TransferLimits& limits, Outbox& outbox);

  // As KvTransfer::Expect; `room` says whether one more transfer may begin.
  absl::Status Expect(contract::TransferId id, std::vector<std::span<std::byte>> blocks, bool room,
                      absl::Duration now);
  void Cancel(contract::TransferId id, absl::Duration now);

  void OnOffer(const OfferFrame& offer, absl::Duration now);
  void OnClosing(const ClosingFrame& closing, absl::Duration now);
  void OnWithdrawn(const WithdrawnFrame& withdrawn, absl::Duration now);

  // A block has arrived: the memory to receive it into, or nullopt to drop it. EndBlock must
  // follow, whatever happens to the block.
  std::optional<std::span<std::byte>> BeginBlock(const BlockHeader& header);
  // `received` is not OK if the bytes did not come; `checksum` is that of the bytes in memory.
  void EndBlock(const BlockHeader& header, const absl::Status& received, std::uint64_t checksum,
                absl::Duration now);

  // The connection to `peer` is closed. `tell`: the peer may be alive, let it know.
  void OnPeerLost(std::string_view peer, const absl::Status& why, bool tell, absl::Duration now);
  void OnTick(absl::Duration now);
  // Gives up everything and tells the peers.
  void CancelAll(const absl::Status& why, absl::Duration now);

  std::size_t size() const { return transfers_.size(); }

 private:
  enum class BlockState : std::uint8_t { kMissing, kInFlight, kHere };

  struct Transfer {
    std::vector<std::span<std::byte>> blocks;
    std::vector<BlockState> states;        // of `blocks`
    std::vector<std::uint64_t> checksums;  // of the blocks that are here
    std::string peer;                      // empty until its offer has come
    std::uint32_t blocks_here = 0;
    std::uint32_t blocks_in_flight = 0;
    std::optional<ClosingFrame> closing;
    absl::Duration deadline;  // of the lease, or of the grace once given up
    absl::Status given_up;    // not OK: ends with this once no block is in flight
    bool closing_peer = false;
  };
  struct ParkedOffer {
    std::string peer;
    absl::Duration deadline;
  };
  using Transfers = std::map<contract::TransferId, Transfer>;

  absl::Status CheckBlocks(const std::vector<std::span<std::byte>>& blocks) const;
  absl::Status CheckOffer(const OfferFrame& offer) const;
  bool MakeRoomFor(const std::string& peer);
  void RefuseUnexpected(contract::TransferId id, const std::string& peer, const absl::Status& why);
  void Accept(contract::TransferId id, Transfer& transfer, std::string peer, absl::Duration now);
  void Refuse(contract::TransferId id, const std::string& peer, const absl::Status& why);
  void CompleteIfAllHere(Transfers::iterator entry, absl::Duration now);
  void GiveUp(Transfers::iterator entry, const absl::Status& why, bool tell, absl::Duration now);
  void EndIfIdle(Transfers::iterator entry);
  void ForcePeer(Transfer& transfer, const absl::Status& why);
  void CountMissing(contract::TransferId id);

  const TransferLimits& limits_;
  Outbox& outbox_;
  Transfers transfers_;
  std::map<contract::TransferId, ParkedOffer> parked_;
  EndedTransfers ended_;
};

}  // namespace baleen::worker
