#include "worker/expert_parallel/dispatch_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "observability/base/status_macros.h"
#include "worker/expert_parallel/placement.h"

namespace baleen::worker {
namespace {

constexpr std::int32_t kSlotsPerRowMax = 64;
constexpr std::int32_t kRowBytesMax = 1 << 18;
constexpr std::int32_t kRowsMax = 1 << 16;

absl::Status OutOfRange(const char* what, std::int64_t value, std::int64_t least,
                        std::int64_t most) {
  return absl::InvalidArgumentError(
      fmt::format("all-to-all: {} is {}, not {} to {}", what, value, least, most));
}

}  // namespace

absl::Status CheckAllToAllShape(const AllToAllShape& shape) {
  const struct {
    const char* what;
    std::int32_t value;
    std::int32_t most;
  } numbers[] = {{"the number of ranks", shape.ranks, kGroupRanksMax},
                 {"the number of expert slots of a rank", shape.slots_per_rank, kExpertsMax},
                 {"the number of experts of a row", shape.slots_per_row, kSlotsPerRowMax},
                 {"the size of a row", shape.row_bytes, kRowBytesMax},
                 {"the size of an output", shape.output_bytes, kRowBytesMax},
                 {"the number of rows of a rank", shape.rows_max, kRowsMax}};
  for (const auto& number : numbers) {
    if (number.value < 1 || number.value > number.most) {
      return OutOfRange(number.what, number.value, 1, number.most);
    }
  }
  if (shape.wait_max <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("all-to-all: the longest wait is not positive");
  }
  return absl::OkStatus();
}

DispatchPlan::DispatchPlan(const AllToAllShape& shape)
    : shape_(shape),
      row_begin_(shape.ranks + 1),
      entry_begin_(shape.ranks + 1),
      next_row_(shape.ranks),
      next_entry_(shape.ranks),
      last_row_(shape.ranks) {
  const std::size_t entries_max = std::size_t(shape.rows_max) * shape.slots_per_row;
  rows_.reserve(entries_max);
  entries_.reserve(entries_max);
}

absl::Status DispatchPlan::Check(const DispatchRows& rows) const {
  if (rows.count < 0 || rows.count > shape_.rows_max) {
    return OutOfRange("the number of rows", rows.count, 0, shape_.rows_max);
  }
  const std::int32_t slots = shape_.ranks * shape_.slots_per_rank;
  for (std::int64_t i = 0; i < rows.count * shape_.slots_per_row; ++i) {
    if (rows.slots[i] < 0 || rows.slots[i] >= slots) {
      return OutOfRange("an expert slot", rows.slots[i], 0, slots - 1);
    }
  }
  return absl::OkStatus();
}

absl::Status DispatchPlan::Assign(const DispatchRows& rows) {
  std::ranges::fill(row_begin_, 0);
  std::ranges::fill(entry_begin_, 0);
  BALEEN_RETURN_IF_ERROR(Check(rows));
  Count(rows);
  Place(rows);
  return absl::OkStatus();
}

// Makes row_begin_ and entry_begin_.
void DispatchPlan::Count(const DispatchRows& rows) {
  std::ranges::fill(last_row_, -1);
  for (std::int64_t row = 0; row < rows.count; ++row) {
    for (const std::int32_t slot : SlotsOf(rows, row)) {
      const std::int32_t rank = slot / shape_.slots_per_rank;
      ++entry_begin_[rank + 1];
      if (last_row_[rank] != row) ++row_begin_[rank + 1];
      last_row_[rank] = row;
    }
  }
  std::partial_sum(row_begin_.begin(), row_begin_.end(), row_begin_.begin());
  std::partial_sum(entry_begin_.begin(), entry_begin_.end(), entry_begin_.begin());
}

void DispatchPlan::Place(const DispatchRows& rows) {
  rows_.resize(row_begin_.back());
  entries_.resize(entry_begin_.back());
  std::copy(row_begin_.begin(), row_begin_.end() - 1, next_row_.begin());
  std::copy(entry_begin_.begin(), entry_begin_.end() - 1, next_entry_.begin());
  std::ranges::fill(last_row_, -1);
  std::int32_t output = 0;
  for (std::int64_t row = 0; row < rows.count; ++row) {
    for (const std::int32_t slot : SlotsOf(rows, row)) {
      const std::int32_t rank = slot / shape_.slots_per_rank;
      if (last_row_[rank] != row) rows_[next_row_[rank]++] = static_cast<std::int32_t>(row);
      last_row_[rank] = row;
      entries_[next_entry_[rank]++] = {
          .slot = slot % shape_.slots_per_rank,
          .row = static_cast<std::int32_t>(next_row_[rank] - row_begin_[rank] - 1),
          .output = output++};
    }
  }
}

std::span<const std::int32_t> DispatchPlan::SlotsOf(const DispatchRows& rows,
                                                    std::int64_t row) const {
  return {rows.slots + row * shape_.slots_per_row, static_cast<std::size_t>(shape_.slots_per_row)};
}

}  // namespace baleen::worker
