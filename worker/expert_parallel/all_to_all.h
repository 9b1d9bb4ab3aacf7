// The exchange of tokens between the ranks of a group: a seam. Every MoE layer of every step has
// two all-to-alls: dispatch brings token rows to the ranks that hold their experts, combine brings
// every expert's output back home, each separately, so that the home rank adds them up in one order
// whatever the placement.
//
//   all ranks, in lockstep:   OpenStep  ( StartDispatch  FinishDispatch  StartCombine FinishCombine
//   )*
//
// Ranks without tokens take part: their peers may need their experts.
#pragma once

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
  std::int32_t columns = 0;         // hidden size: values of a row
  std::int32_t rows_max = 0;        // of one rank in one lane
  // How long one call may wait for a peer.
  absl::Duration wait_max = absl::Seconds(5);
};

// INVALID_ARGUMENT names the number that is out of range.
absl::Status CheckAllToAllShape(const AllToAllShape& shape);

// What each rank says to all others when a step opens.
struct StepOpening {
  std::uint64_t epoch = 0;  // of the group's membership
  std::uint64_t step = 0;   // counts up, equal on all ranks
  std::uint32_t rows = 0;   // tokens that this rank brings
  bool leaves = false;      // this is its last step
  friend bool operator==(const StepOpening&, const StepOpening&) = default;
};

// Token rows on their way to their experts. Stays as it is until FinishCombine of the lane returns.
struct DispatchRows {
  std::int64_t count = 0;               // 0 to rows_max
  const std::uint16_t* x = nullptr;     // bf16 [count][columns]
  const std::int32_t* slots = nullptr;  // [count][slots_per_row]: expert slots, distinct in a row
};

// One row for one expert slot of this rank.
struct ArrivedEntry {
  std::int32_t slot = 0;  // of this rank: 0 to slots_per_rank - 1
  std::int32_t row = 0;   // index into ArrivedRows::x
};

// What the experts of this rank are to compute. Valid until StartCombine of the lane.
struct ArrivedRows {
  const std::uint16_t* x = nullptr;  // bf16 [rows][columns]; a row is here once for all its experts
  std::int64_t rows = 0;
  // In the order of source rank, row, and place in the row: a function of what was sent.
  std::span<const ArrivedEntry> entries;
};

// One rank's end. One thread at a time; every call but StartDispatch and StartCombine waits for
// peers, at most wait_max: DEADLINE_EXCEEDED, UNAVAILABLE (a peer has gone) or FAILED_PRECONDITION
// (a peer is in another epoch or step) name the peer and the phase. After an error the endpoint is
// broken and every call returns that error; nothing of the step may be used. Real: UCX, NCCL. Twin:
// LoopbackAllToAll.
class AllToAll {
 public:
  virtual ~AllToAll() = default;

  // What all ranks said, by rank; valid until the next OpenStep.
  virtual absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& mine) = 0;

  // INVALID_ARGUMENT, and nothing is sent, if a count or slot is out of range.
  virtual absl::Status StartDispatch(int lane, const DispatchRows& rows) = 0;
  virtual absl::StatusOr<ArrivedRows> FinishDispatch(int lane) = 0;

  // `y`: bf16 [entries][columns], the outputs in the order of ArrivedRows::entries. Stays as it is
  // until FinishCombine of the lane returns.
  virtual absl::Status StartCombine(int lane, const std::uint16_t* y) = 0;
  // Fills `slots`, bf16 [rows][slots_per_row][columns], for the rows of StartDispatch.
  virtual absl::Status FinishCombine(int lane, std::uint16_t* slots) = 0;
};

}  // namespace baleen::worker
