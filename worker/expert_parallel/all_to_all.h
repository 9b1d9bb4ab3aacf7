// The exchange of tokens between the ranks of a group: a seam, seen from its two users.
//
// The model sees AllToAll. Every MoE layer of every step has two all-to-alls: dispatch brings token
// rows to the ranks that hold their experts, combine brings every expert's output back home, each
// separately, so that the home rank adds them up in one order whatever the placement.
//
// The engine sees StepBarrier: ranks step in lockstep, and sleep together when none has work.
//
//   all ranks:  OpenStep  ( StartDispatch  FinishDispatch  StartCombine  FinishCombine )*
//
// Ranks without tokens take part: their peers may need their experts. Rows are bytes here: what
// they hold (bf16, or FP8 with its scales) is the model's affair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace baleen::worker {

// Layers of two micro-batches may be under way at the same time, each in a lane of its own.
inline constexpr int kLanes = 2;

// The same on all ranks of a group.
struct AllToAllShape {
  std::int32_t ranks = 1;
  std::int32_t slots_per_rank = 1;  // expert slots: slot s is on rank s / slots_per_rank
  std::int32_t slots_per_row = 1;   // experts that a token goes to (top-k)
  std::int32_t row_bytes = 0;       // of a token's row on its way to an expert
  std::int32_t output_bytes = 0;    // of an expert's output on its way home
  std::int32_t rows_max = 0;        // of one rank in one lane
  // How long one call may wait for a peer.
  absl::Duration wait_max = absl::Seconds(5);
};

// INVALID_ARGUMENT names the number that is out of range.
absl::Status CheckAllToAllShape(const AllToAllShape& shape);

// Token rows on their way to their experts. Stays as it is until FinishDispatch of the lane
// returns.
struct DispatchRows {
  std::int64_t count = 0;               // 0 to rows_max
  const std::byte* x = nullptr;         // [count][row_bytes]
  const std::int32_t* slots = nullptr;  // [count][slots_per_row]: expert slots, distinct in a row
};

// One row for one expert slot of this rank.
struct ArrivedEntry {
  std::int32_t slot = 0;  // of this rank: 0 to slots_per_rank - 1
  std::int32_t row = 0;   // begins at ArrivedRows::x + row * row_bytes
};

// What the experts of this rank are to compute. Valid until StartCombine of the lane.
struct ArrivedRows {
  const std::byte* x = nullptr;  // aligned to 64; a row is here once for all its experts
  // In the order of source rank, row, and place in the row: a function of what was sent. So entries
  // of one row follow each other, and row numbers ascend, not without gaps.
  std::span<const ArrivedEntry> entries;
  // [entries][output_bytes], aligned to 64: where their outputs are to be written.
  std::byte* outputs = nullptr;
};

// One rank's end. One thread at a time, the same one as StepBarrier's. Finish calls wait for peers,
// at most wait_max: DEADLINE_EXCEEDED, UNAVAILABLE (a peer has gone) or FAILED_PRECONDITION (a peer
// is in another epoch or step, or breaks the rules) name the peer and the phase. After an error the
// endpoint is broken and every call returns that error; nothing of the step may be used.
class AllToAll {
 public:
  virtual ~AllToAll() = default;

  // INVALID_ARGUMENT, and nothing is sent, if a count or slot is out of range.
  virtual absl::Status StartDispatch(int lane, const DispatchRows& rows) = 0;
  virtual absl::StatusOr<ArrivedRows> FinishDispatch(int lane) = 0;

  // ArrivedRows::outputs are complete.
  virtual absl::Status StartCombine(int lane) = 0;
  // [rows][slots_per_row][output_bytes], aligned to 64, for the rows of StartDispatch; valid until
  // the lane's next StartDispatch.
  virtual absl::StatusOr<const std::byte*> FinishCombine(int lane) = 0;
};

// What each rank says to all others when a step opens.
struct StepOpening {
  std::uint64_t epoch = 0;     // of the group's membership
  std::uint64_t step = 0;      // counts up from 1 in an epoch, equal on all ranks
  std::uint32_t rows = 0;      // tokens that this rank brings
  std::uint32_t prepared = 0;  // changes of the placement that it could adopt, counted in the epoch
  bool leaves = false;         // it drains, and has no work of its own left
  friend bool operator==(const StepOpening&, const StepOpening&) = default;
};

// One rank's end of the lockstep. Errors as in AllToAll.
class StepBarrier {
 public:
  virtual ~StepBarrier() = default;

  // Says `mine` to all, and waits for what all say, at most wait_max. By rank; valid until the next
  // OpenStep.
  virtual absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& mine) = 0;

  // Sleeps until a peer has opened a step that this rank has not, Interrupt, or `limit`. True if a
  // peer has: it waits for us.
  virtual absl::StatusOr<bool> AwaitPeers(absl::Duration limit) = 0;

  // Any thread: ends the current AwaitPeers, or the next one.
  virtual void Interrupt() = 0;

  // Any thread: breaks the endpoint, with `why` for whoever calls or waits. For what is heard
  // outside of the data plane: that a peer has gone. Peers hear of it at the latest when the
  // endpoint is destroyed.
  virtual void Abort(const absl::Status& why) = 0;
};

// A rank's end of its group, for one epoch. Its destruction is the rank's going: peers that wait
// for it get UNAVAILABLE. Real: UCX, NCCL. Twin: loopback.
class GroupEndpoint : public AllToAll, public StepBarrier {};

}  // namespace baleen::worker
