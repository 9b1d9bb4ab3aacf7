// The seam over which a prompt's KV blocks move from a prefill rank to a decode rank.
//
// A transfer is named by a random TransferId that the router gives to both ranks. The sender offers
// it; the receiver answers once it has reserved blocks for it (Expect), so nothing moves into
// memory that nobody owns. Each block carries a checksum; the last message carries the manifest (a
// few small values of the engine's choosing) and the checksum of all. The receiver verifies all of
// it, in whatever order the parts arrive, before it reports kReceived, and then answers the sender
// (kHandedOver). Wire frames carry ids, block numbers and lengths, never addresses.
//
// A sender without an answer, a receiver without an offer, a peer that stopped: each ends with its
// lease, which every sign of progress (a part given to Send, a frame or a block of the peer) starts
// again. A dead peer is noticed much sooner.
//
// Memory: the spans given to Expect and Send must stay valid until the transfer's final event;
// after that event no byte of them is read or written by this layer. Every transfer that was begun
// here gets exactly one final event. After Cancel, or a lease that ran out, that event waits until
// no block is in flight: a connection on which a block hangs is closed by force for it, after a
// second at most, which costs the other transfers between the same two ranks (UNAVAILABLE).
//
// Threading: any thread may call; events come out of Poll, which the engine calls at the top of
// each step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"

namespace baleen::worker {

// Blocks of one transfer: the longest context the contract allows.
inline constexpr std::uint32_t kTransferBlocksMax =
    contract::kContextTokensMax / contract::kBlockTokens;
static_assert(contract::kContextTokensMax % contract::kBlockTokens == 0);

struct TransferLimits {
  std::uint32_t transfers_max = 256;  // begun and not ended, sending and receiving together
  // Offers whose Expect has not come yet; shared fairly among the peers that they name.
  std::uint32_t offers_parked_max = 256;
  std::size_t block_bytes = 0;  // exact size of every block; peers with another size are refused
  std::size_t manifest_bytes_max = 4096;     // at most 4096
  absl::Duration lease = absl::Seconds(30);  // longest life of a transfer without progress
};

enum class TransferEventKind : std::uint8_t {
  kReceived,    // receiver, final: all blocks and the manifest are here and verified
  kHandedOver,  // sender, final: the receiver has verified; blocks may be reused
  kFailed,      // either side, final: `status` says why
};

// Codes of kFailed: CANCELLED (either side's Cancel or orderly end), UNAVAILABLE (peer lost),
// DATA_LOSS (a checksum, or blocks and total disagree), DEADLINE_EXCEEDED (lease),
// RESOURCE_EXHAUSTED (the receiver has too many offers parked), FAILED_PRECONDITION (the two sides
// do not fit: protocol version, block size, more blocks than were reserved).
struct TransferEvent {
  contract::TransferId id;
  TransferEventKind kind = TransferEventKind::kFailed;
  absl::Status status;      // OK unless kFailed
  std::string manifest;     // kReceived
  std::uint64_t bytes = 0;  // block bytes sent or received, also of a failed transfer
};

// One part of an outgoing transfer. The first Send of an id opens it. Blocks may be sent in any
// order as they are computed, each number once; the closing part may come before the last block.
struct SendPart {
  contract::TransferId id;
  std::string peer_address;          // of the receiver, its LocalAddress(); may be empty after the
                                     // first part
  std::uint32_t block_number = 0;    // position in the sequence: covers tokens [64 n, 64 n + 64)
  std::span<const std::byte> block;  // block_bytes long; empty on the closing part
  bool last = false;                 // closing part: carries blocks_total and manifest, no block
  std::uint32_t blocks_total = 0;    // closing part: blocks are numbered 0 .. blocks_total-1
  std::string manifest;              // closing part
};

class KvTransfer {
 public:
  virtual ~KvTransfer() = default;

  // Opaque bytes with which peers reach this rank (a UCX worker address), at most
  // kDataPlaneAddressBytesMax; constant.
  virtual std::string LocalAddress() const = 0;

  // Receiver: memory for blocks 0 .. n-1 of transfer `id`; the sender may use fewer.
  // ALREADY_EXISTS (ids are used once, also after the final event), RESOURCE_EXHAUSTED
  // (transfers_max) or INVALID_ARGUMENT (no block, more than kTransferBlocksMax, a span of another
  // size) start nothing. A transfer that the sender has given up before is begun, and fails at
  // once.
  virtual absl::Status Expect(contract::TransferId id,
                              std::vector<std::span<std::byte>> blocks) = 0;

  // Sender. RESOURCE_EXHAUSTED (transfers_max) starts nothing; INVALID_ARGUMENT: the part is
  // ignored; FAILED_PRECONDITION: the transfer has ended, its final event, taken or waiting in
  // Poll, says why. Later failures come as kFailed.
  virtual absl::Status Send(SendPart part) = 0;

  // Gives a transfer up on either side and tells the other one. A kFailed event with CANCELLED
  // follows unless the final event is already under way. Unknown ids are ignored.
  virtual void Cancel(contract::TransferId id) = 0;

  // Takes the events since the last call. Never blocks.
  virtual std::vector<TransferEvent> Poll() = 0;
};

}  // namespace baleen::worker
