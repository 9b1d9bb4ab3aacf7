#include "worker/expert_parallel/ucx/wire/mailbox.h"

#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "worker/expert_parallel/ucx/wire/exchange_frames.h"

namespace baleen::worker {
namespace {

constexpr std::int64_t kPageBytes = 4096;

std::int64_t RoundedUp(std::int64_t value, std::int64_t to) { return (value + to - 1) / to * to; }

}  // namespace

absl::StatusOr<MailboxLayout> MailboxLayout::Of(const AllToAllShape& shape) {
  const std::int64_t lane = RoundedUp(std::int64_t{shape.rows_max} * shape.row_bytes +
                                          EntriesMax(shape) * std::int64_t{sizeof(PlannedEntry)},
                                      kPageBytes);
  const std::int64_t stride = RoundedUp(std::int64_t{kHeaderBytes} + kLanes * lane,
                                        std::lcm(kPageBytes, std::int64_t{shape.row_bytes}));
  const std::int64_t rows = stride / shape.row_bytes * shape.ranks;
  if (rows > std::numeric_limits<std::int32_t>::max()) {
    return absl::InvalidArgumentError(fmt::format(
        "all-to-all: {} ranks with {} rows of {} bytes need {} row numbers, above {}", shape.ranks,
        shape.rows_max, shape.row_bytes, rows, std::numeric_limits<std::int32_t>::max()));
  }
  MailboxLayout layout;
  layout.lane_bytes = lane;
  layout.stride = stride;
  layout.rows_per_source = static_cast<std::int32_t>(stride / shape.row_bytes);
  layout.output_lane_bytes = RoundedUp(
      std::int64_t{shape.rows_max} * shape.slots_per_row * shape.output_bytes, kPageBytes);
  return layout;
}

}  // namespace baleen::worker
