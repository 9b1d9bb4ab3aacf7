// What two ranks say to each other about a KV transfer, and its bytes. Pure; bounded before
// anything is allocated.
//
// A frame is a 16-byte head, a body of its kind, and a checksum of both (all little-endian):
//
//   offset   0: u32 magic
//            4: u8  kind
//            5: u8  version
//            6: u16 zero
//            8: u64 transfer id
//           16: body
//          n-8: u64 checksum
//
// Frames name transfers by id and blocks by number; no frame carries a memory address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"

namespace baleen::worker {

// Raised when a frame changes. Only an offer is read whatever its version (its layout is fixed for
// good), so that the refusal can name both versions.
inline constexpr std::uint8_t kTransferProtocolVersion = 1;

inline constexpr std::size_t kManifestBytesMax = 4096;
inline constexpr std::size_t kStatusMessageBytesMax = 512;  // longer messages are cut
// Head 16, fields of a body at most 16, the longest string, checksum 8.
inline constexpr std::size_t kFrameBytesMax = 16 + 16 + 4096 + 8;
static_assert(contract::kDataPlaneAddressBytesMax <= 4096 && kManifestBytesMax <= 4096);
// A block travels behind this header: head 16, number 4, zero 4, length 8, checksum of the block 8,
// checksum 8.
inline constexpr std::size_t kBlockHeaderBytes = 48;

// Sender to receiver: "I will have blocks for `id`; answer me at `reply_address`."
struct OfferFrame {
  contract::TransferId id;
  std::uint8_t version = kTransferProtocolVersion;
  std::uint64_t block_bytes = 0;
  std::string reply_address;
};

// Receiver to sender: memory for blocks 0 .. blocks-1 is reserved; send.
struct ReadyFrame {
  contract::TransferId id;
  std::uint32_t blocks = 0;
};

// Sender to receiver, in front of a block's bytes.
struct BlockHeader {
  contract::TransferId id;
  std::uint32_t number = 0;
  std::uint64_t length = 0;    // bytes
  std::uint64_t checksum = 0;  // of the bytes
};

// Sender to receiver, once every block has gone.
struct ClosingFrame {
  contract::TransferId id;
  std::uint32_t blocks_total = 0;
  std::uint64_t checksum = 0;  // CombinedChecksum
  std::string manifest;
};

// Receiver to sender: everything is here and verified.
struct HandedOverFrame {
  contract::TransferId id;
};

// Receiver to sender: refused or given up. The status is never OK.
struct FailedFrame {
  contract::TransferId id;
  absl::Status status;
};

// Sender to receiver: given up. The status is never OK.
struct WithdrawnFrame {
  contract::TransferId id;
  absl::Status status;
};

using Frame = std::variant<OfferFrame, ReadyFrame, BlockHeader, ClosingFrame, HandedOverFrame,
                           FailedFrame, WithdrawnFrame>;

// Strings above their limits are programmer errors, except status messages, which are cut.
std::string EncodeFrame(const Frame& frame);

// INVALID_ARGUMENT for anything that EncodeFrame does not write.
absl::StatusOr<Frame> DecodeFrame(std::span<const std::byte> bytes);

}  // namespace baleen::worker
