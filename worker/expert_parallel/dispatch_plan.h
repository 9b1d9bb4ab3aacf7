// What a rank sends where: a pure function of its rows' expert slots. Sender and receiver both work
// from it, so that nothing but rows and their slots need cross.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// One row and one of its slots, as the home rank sees them.
struct PlannedEntry {
  std::int32_t slot = 0;    // on the destination: 0 to slots_per_rank - 1
  std::int32_t row = 0;     // index into the rows sent to that destination
  std::int32_t output = 0;  // where the result goes: row at home * slots_per_row + place in the row
};

// Sized at construction; Assign does not allocate. Not thread-safe.
class DispatchPlan {
 public:
  explicit DispatchPlan(const AllToAllShape& shape);

  // INVALID_ARGUMENT names a count or slot that is out of range; the plan is empty then.
  absl::Status Assign(const DispatchRows& rows);

  // What goes to all ranks, those of one rank after those of the rank before.
  std::span<const std::int32_t> rows() const { return std::span(rows_).first(row_begin_.back()); }
  std::span<const PlannedEntry> entries() const {
    return std::span(entries_).first(entry_begin_.back());
  }

  // Rows at home that go to `rank`, ascending, each once.
  std::span<const std::int32_t> RowsTo(std::int32_t rank) const {
    return std::span(rows_).subspan(row_begin_[rank], row_begin_[rank + 1] - row_begin_[rank]);
  }
  // Its entries, in the order of row and place in the row.
  std::span<const PlannedEntry> EntriesTo(std::int32_t rank) const {
    return std::span(entries_).subspan(entry_begin_[rank],
                                       entry_begin_[rank + 1] - entry_begin_[rank]);
  }

 private:
  absl::Status Check(const DispatchRows& rows) const;
  void Count(const DispatchRows& rows);
  void Place(const DispatchRows& rows);
  std::span<const std::int32_t> SlotsOf(const DispatchRows& rows, std::int64_t row) const;

  const AllToAllShape shape_;
  std::vector<std::size_t> row_begin_;    // [ranks + 1]
  std::vector<std::size_t> entry_begin_;  // [ranks + 1]
  std::vector<std::int32_t> rows_;
  std::vector<PlannedEntry> entries_;
  // Scratch, [ranks].
  std::vector<std::size_t> next_row_;
  std::vector<std::size_t> next_entry_;
  std::vector<std::int64_t> last_row_;  // the last row that was seen for a rank
};

}  // namespace baleen::worker
