// The memory that a rank keeps for what one other rank says to it. A peer on the same machine maps
// it and writes it itself; for any other peer the rank writes it when a message has arrived. So it
// is read in one way only, and nothing in it is believed.
//
//   one mailbox, mailbox_stride bytes:
//     Mailbox                          the header, 4096 bytes
//     kLanes x lane_bytes:             [rows][row_bytes], then [entries] PlannedEntry
//
// The mailboxes of a rank follow each other, by source, at a stride that is a multiple of
// row_bytes: a row number counts from the first one.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// Each group of numbers is in a cache line of its own. Every count goes up by one, after what it
// counts has been written.
struct Mailbox {
  struct Opening {
    std::uint64_t epoch = 0;
    std::uint64_t step = 0;
    std::uint32_t rows = 0;
    std::uint32_t prepared = 0;
    std::uint32_t leaves = 0;
  };
  struct alignas(64) Lane {
    std::atomic<std::uint64_t> dispatches = 0;
    std::atomic<std::int64_t> dispatched_ns = 0;  // by the machine's monotonic clock
    // Read once each, so that what is checked is what is used.
    std::atomic<std::uint32_t> rows = 0;
    std::atomic<std::uint32_t> entries = 0;
  };
  struct alignas(64) Combines {
    std::atomic<std::uint64_t> count = 0;
    std::atomic<std::int64_t> combined_ns = 0;
  };

  std::uint64_t key = 0;  // of the owner: what a peer has mapped is what it was told of

  alignas(64) std::atomic<std::uint64_t> openings = 0;
  std::atomic<std::int64_t> opened_ns = 0;
  std::array<Opening, 2> opening{};  // by parity: a fast rank may open the next step already

  std::array<Lane, kLanes> lanes;
  std::array<Combines, kLanes> combines;

  // The owner sleeps until it hears of something: whoever writes here wakes it.
  alignas(64) std::atomic<std::uint32_t> asleep = 0;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

struct MailboxLayout {
  // INVALID_ARGUMENT: row numbers of this shape do not fit into 32 bits.
  static absl::StatusOr<MailboxLayout> Of(const AllToAllShape& shape);

  std::size_t OffsetOf(int lane) const { return kHeaderBytes + lane * lane_bytes; }

  static constexpr std::size_t kHeaderBytes = 4096;
  std::size_t lane_bytes = 0;
  std::size_t stride = 0;             // bytes from one source's mailbox to the next
  std::int32_t rows_per_source = 0;   // the same in rows
  std::size_t output_lane_bytes = 0;  // [rows_max][slots_per_row][output_bytes]
};
static_assert(sizeof(Mailbox) <= MailboxLayout::kHeaderBytes);

}  // namespace baleen::worker
