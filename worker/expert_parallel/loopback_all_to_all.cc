#include "worker/expert_parallel/loopback_all_to_all.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string_view>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "worker/expert_parallel/dispatch_plan.h"

namespace baleen::worker {
namespace {

// What a rank has put on the table for its peers, under the mutex of the group. Counts go up by one
// with each use; what they count stays in place until all peers have passed the next phase.
struct Posted {
  bool gone = false;
  std::uint64_t openings = 0;
  std::array<StepOpening, 2> opening;  // by parity: a fast rank may open the next step already
  struct Lane {
    std::uint64_t dispatches = 0;
    std::uint64_t combines = 0;
    DispatchRows rows;
    const DispatchPlan* plan = nullptr;
    const std::uint16_t* y = nullptr;
    const std::size_t* y_begin = nullptr;  // [ranks]: where the entries of each source begin in y
  };
  std::array<Lane, kLanes> lanes;
};

}  // namespace

struct LoopbackGroup::Shared {
  explicit Shared(const AllToAllShape& group_shape)
      : shape(group_shape), joined(shape.ranks, false), posted(shape.ranks) {}

  const AllToAllShape shape;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> joined;
  std::vector<Posted> posted;
};

// Rows and outputs are read from the peers' memory, under the mutex, and only while the peer has
// not gone: its caller may free them then. A peer's rows stay until its FinishCombine, which waits
// for our StartCombine; its outputs stay until then too, so FinishCombine waits until all have
// fetched.
class LoopbackAllToAll final : public AllToAll {
 public:
  LoopbackAllToAll(LoopbackGroup::Shared& shared, std::int32_t rank)
      : shared_(shared),
        shape_(shared.shape),
        rank_(rank),
        openings_(shape_.ranks),
        lanes_{Lane(shape_), Lane(shape_)} {}

  ~LoopbackAllToAll() override {
    const std::lock_guard lock(shared_.mutex);
    Leave();
  }

  absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& opening) override {
    BALEEN_RETURN_IF_ERROR(broken_);
    std::unique_lock lock(shared_.mutex);
    mine().opening[mine().openings % 2] = opening;
    const std::uint64_t count = ++mine().openings;
    BALEEN_RETURN_IF_ERROR(
        AwaitAll(lock, "step barrier", [&](const Posted& peer) { return peer.openings >= count; }));
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      openings_[peer] = shared_.posted[peer].opening[(count - 1) % 2];
      const StepOpening& theirs = openings_[peer];
      if (theirs.epoch == opening.epoch && theirs.step == opening.step) continue;
      return Break(absl::FailedPreconditionError(fmt::format(
          "all-to-all: rank {} is in epoch {} step {}, this rank {} in epoch {} step {}", peer,
          theirs.epoch, theirs.step, rank_, opening.epoch, opening.step)));
    }
    return openings_;
  }

  absl::Status StartDispatch(int number, const DispatchRows& rows) override {
    BALEEN_RETURN_IF_ERROR(broken_);
    Lane& lane = LaneOf(number, Phase::kIdle);
    BALEEN_RETURN_IF_ERROR(lane.plan.Assign(rows));
    const std::lock_guard lock(shared_.mutex);
    Posted::Lane& table = mine().lanes[number];
    table.rows = rows;
    table.plan = &lane.plan;
    lane.dispatches = ++table.dispatches;
    shared_.changed.notify_all();
    lane.phase = Phase::kDispatching;
    return absl::OkStatus();
  }

  absl::StatusOr<ArrivedRows> FinishDispatch(int number) override {
    BALEEN_RETURN_IF_ERROR(broken_);
    Lane& lane = LaneOf(number, Phase::kDispatching);
    std::unique_lock lock(shared_.mutex);
    BALEEN_RETURN_IF_ERROR(AwaitAll(lock, "dispatch", [&](const Posted& peer) {
      return !peer.gone && peer.lanes[number].dispatches >= lane.dispatches;
    }));
    lane.entries.clear();
    std::int64_t rows = 0;
    for (std::int32_t source = 0; source < shape_.ranks; ++source) {
      const Posted::Lane& table = shared_.posted[source].lanes[number];
      lane.begin[source] = lane.entries.size();
      for (const PlannedEntry& entry : table.plan->EntriesTo(rank_)) {
        lane.entries.push_back(
            {.slot = entry.slot, .row = static_cast<std::int32_t>(rows + entry.row)});
      }
      for (const std::int32_t row : table.plan->RowsTo(rank_)) {
        CopyRow(table.rows.x + std::int64_t{row} * shape_.columns,
                lane.x.data() + rows++ * shape_.columns);
      }
    }
    lane.phase = Phase::kComputing;
    return ArrivedRows{.x = lane.x.data(), .rows = rows, .entries = lane.entries};
  }

  absl::Status StartCombine(int number, const std::uint16_t* y) override {
    BALEEN_RETURN_IF_ERROR(broken_);
    Lane& lane = LaneOf(number, Phase::kComputing);
    const std::lock_guard lock(shared_.mutex);
    Posted::Lane& table = mine().lanes[number];
    table.y = y;
    table.y_begin = lane.begin.data();
    ++table.combines;
    shared_.changed.notify_all();
    lane.phase = Phase::kCombining;
    return absl::OkStatus();
  }

  absl::Status FinishCombine(int number, std::uint16_t* slots) override {
    BALEEN_RETURN_IF_ERROR(broken_);
    Lane& lane = LaneOf(number, Phase::kCombining);
    std::unique_lock lock(shared_.mutex);
    BALEEN_RETURN_IF_ERROR(AwaitAll(lock, "combine", [&](const Posted& peer) {
      return !peer.gone && peer.lanes[number].combines >= 2 * lane.dispatches - 1;
    }));
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      const Posted::Lane& table = shared_.posted[peer].lanes[number];
      const std::uint16_t* from = table.y + table.y_begin[rank_] * shape_.columns;
      for (const PlannedEntry& entry : lane.plan.EntriesTo(peer)) {
        CopyRow(from, slots + std::int64_t{entry.output} * shape_.columns);
        from += shape_.columns;
      }
    }
    // The second count of a combine says that this rank has fetched.
    ++mine().lanes[number].combines;
    BALEEN_RETURN_IF_ERROR(AwaitAll(lock, "combine", [&](const Posted& peer) {
      return peer.lanes[number].combines >= 2 * lane.dispatches;
    }));
    lane.phase = Phase::kIdle;
    return absl::OkStatus();
  }

 private:
  enum class Phase : std::uint8_t { kIdle, kDispatching, kComputing, kCombining };

  struct Lane {
    explicit Lane(const AllToAllShape& shape)
        : plan(shape),
          x(std::size_t(shape.ranks) * shape.rows_max * shape.columns),
          begin(shape.ranks) {
      entries.reserve(std::size_t(shape.ranks) * shape.rows_max * shape.slots_per_row);
    }
    Phase phase = Phase::kIdle;
    std::uint64_t dispatches = 0;
    DispatchPlan plan;
    std::vector<std::uint16_t> x;
    std::vector<ArrivedEntry> entries;
    std::vector<std::size_t> begin;  // [ranks]: of each source's entries
  };

  Posted& mine() { return shared_.posted[rank_]; }

  Lane& LaneOf(int number, Phase expected) {
    BALEEN_CHECK(number >= 0 && number < kLanes, "a lane that is there");
    BALEEN_CHECK(lanes_[number].phase == expected, "the calls of a lane come in their order");
    return lanes_[number];
  }

  void CopyRow(const std::uint16_t* from, std::uint16_t* to) const {
    std::memcpy(to, from, shape_.columns * sizeof(std::uint16_t));
  }

  // Under the mutex. What this rank has put on the table may be freed from now on.
  void Leave() {
    mine().gone = true;
    shared_.changed.notify_all();
  }

  absl::Status Break(absl::Status why) {
    Leave();
    return broken_ = std::move(why);
  }

  // Says that something has been posted, and waits until it is there from all ranks.
  template <typename There>
  absl::Status AwaitAll(std::unique_lock<std::mutex>& lock, std::string_view phase, There there) {
    shared_.changed.notify_all();
    const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(shape_.wait_max);
    for (std::int32_t peer = 0; peer < shape_.ranks;) {
      const Posted& posted = shared_.posted[peer];
      if (there(posted)) {
        ++peer;
      } else if (posted.gone) {
        return Break(absl::UnavailableError(
            fmt::format("all-to-all: rank {} has gone, in the {}", peer, phase)));
      } else if (shared_.changed.wait_until(lock, end) == std::cv_status::no_timeout) {
        peer = 0;  // one that was there may have gone meanwhile
      } else {
        return Break(absl::DeadlineExceededError(
            fmt::format("all-to-all: waited {} for rank {} in the {}",
                        absl::FormatDuration(shape_.wait_max), peer, phase)));
      }
    }
    return absl::OkStatus();
  }

  LoopbackGroup::Shared& shared_;
  const AllToAllShape shape_;
  const std::int32_t rank_;
  absl::Status broken_;
  std::vector<StepOpening> openings_;
  std::array<Lane, kLanes> lanes_;
};

LoopbackGroup::LoopbackGroup(const AllToAllShape& shape)
    : shared_(std::make_unique<Shared>(shape)) {}

LoopbackGroup::~LoopbackGroup() = default;

absl::StatusOr<std::unique_ptr<LoopbackGroup>> LoopbackGroup::Make(const AllToAllShape& shape) {
  BALEEN_RETURN_IF_ERROR(CheckAllToAllShape(shape));
  return std::unique_ptr<LoopbackGroup>(new LoopbackGroup(shape));
}

std::unique_ptr<AllToAll> LoopbackGroup::Join(std::int32_t rank) {
  BALEEN_CHECK(rank >= 0 && rank < shared_->shape.ranks, "a rank of the group");
  {
    const std::lock_guard lock(shared_->mutex);
    BALEEN_CHECK(!shared_->joined[rank], "each rank joins once");
    shared_->joined[rank] = true;
  }
  return std::make_unique<LoopbackAllToAll>(*shared_, rank);
}

}  // namespace baleen::worker
