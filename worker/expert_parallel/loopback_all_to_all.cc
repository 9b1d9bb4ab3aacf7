#include "worker/expert_parallel/loopback_all_to_all.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "worker/expert_parallel/dispatch_plan.h"

namespace baleen::worker {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

// Bytes aligned to 64.
class Bytes {
 public:
  void Resize(std::size_t size) { lines_.resize((size + sizeof(Line) - 1) / sizeof(Line)); }
  std::byte* data() { return reinterpret_cast<std::byte*>(lines_.data()); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> lines_;
};

// What a rank has said, under the mutex of the group. Counts go up by one with each use.
struct Posted {
  bool gone = false;
  bool interrupted = false;
  absl::Status aborted;
  std::uint64_t openings = 0;
  std::array<StepOpening, 2> opening;  // by parity: a fast rank may open the next step already
  std::array<std::uint64_t, kLanes> dispatches{};
  std::array<std::uint64_t, kLanes> combines{};
};

// Where the peers put what is for one lane of one rank. Written outside of the mutex, before the
// count that says so: a peer dispatches into it again only after this rank's combine, and combines
// again only after its next dispatch.
struct Box {
  Bytes x;                                         // [ranks][rows_max][row_bytes]
  std::vector<std::vector<PlannedEntry>> entries;  // by source rank
  Bytes slots;                                     // [rows_max][slots_per_row][output_bytes]
};

}  // namespace

struct LoopbackGroup::Shared {
  explicit Shared(const AllToAllShape& group_shape)
      : shape(group_shape), joined(shape.ranks, false), posted(shape.ranks), boxes(shape.ranks) {
    const std::size_t entries_max = std::size_t(shape.rows_max) * shape.slots_per_row;
    for (auto& lanes : boxes) {
      for (Box& box : lanes) {
        box.x.Resize(std::size_t(shape.ranks) * shape.rows_max * shape.row_bytes);
        box.entries.resize(shape.ranks);
        box.slots.Resize(entries_max * shape.output_bytes);
      }
    }
  }

  const AllToAllShape shape;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> joined;
  std::vector<Posted> posted;
  std::vector<std::array<Box, kLanes>> boxes;  // by rank; stay when a rank has gone
};

class LoopbackEndpoint final : public GroupEndpoint {
 public:
  LoopbackEndpoint(LoopbackGroup::Shared& shared, std::int32_t rank, ExchangeMeter* meter)
      : shared_(shared),
        shape_(shared.shape),
        rank_(rank),
        meter_(meter),
        openings_(shape_.ranks),
        lanes_{Lane(shape_), Lane(shape_)} {}

  ~LoopbackEndpoint() override {
    const std::lock_guard lock(shared_.mutex);
    Leave();
  }

  absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& opening) override {
    std::unique_lock lock(shared_.mutex);
    BALEEN_RETURN_IF_ERROR(Broken());
    mine().opening[mine().openings % 2] = opening;
    const std::uint64_t count = ++mine().openings;
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      AddBytes(ExchangePhase::kStepBarrier, peer, sizeof(StepOpening));
    }
    BALEEN_RETURN_IF_ERROR(AwaitAll(lock, ExchangePhase::kStepBarrier,
                                    [&](const Posted& peer) { return peer.openings >= count; }));
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

  absl::StatusOr<bool> AwaitPeers(absl::Duration limit) override {
    std::unique_lock lock(shared_.mutex);
    BALEEN_RETURN_IF_ERROR(Broken());
    const SteadyTime end = EndOf(limit);
    while (true) {
      bool waited_for = false;
      for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
        if (shared_.posted[peer].gone) return Break(HasGone(peer, ExchangePhase::kStepBarrier));
        waited_for |= shared_.posted[peer].openings > mine().openings;
      }
      if (waited_for || std::exchange(mine().interrupted, false)) return waited_for;
      if (shared_.changed.wait_until(lock, end) == std::cv_status::timeout) return false;
      BALEEN_RETURN_IF_ERROR(Broken());
    }
  }

  void Interrupt() override {
    const std::lock_guard lock(shared_.mutex);
    mine().interrupted = true;
    shared_.changed.notify_all();
  }

  void Abort(const absl::Status& why) override {
    const std::lock_guard lock(shared_.mutex);
    if (mine().aborted.ok()) mine().aborted = why;
    Leave();
  }

  absl::Status StartDispatch(int number, const DispatchRows& rows) override {
    BALEEN_RETURN_IF_ERROR(LockedBroken());
    Lane& lane = LaneOf(number, Phase::kIdle);
    BALEEN_RETURN_IF_ERROR(lane.plan.Assign(rows));
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      Box& box = shared_.boxes[peer][number];
      std::byte* to = box.x.data() + std::int64_t{rank_} * shape_.rows_max * shape_.row_bytes;
      for (const std::int32_t row : lane.plan.RowsTo(peer)) {
        std::memcpy(to, rows.x + std::int64_t{row} * shape_.row_bytes, shape_.row_bytes);
        to += shape_.row_bytes;
      }
      const auto entries = lane.plan.EntriesTo(peer);
      box.entries[rank_].assign(entries.begin(), entries.end());
      AddBytes(ExchangePhase::kDispatch, peer, lane.plan.RowsTo(peer).size() * shape_.row_bytes);
    }
    const std::lock_guard lock(shared_.mutex);
    lane.dispatches = ++mine().dispatches[number];
    shared_.changed.notify_all();
    lane.phase = Phase::kDispatching;
    return absl::OkStatus();
  }

  absl::StatusOr<ArrivedRows> FinishDispatch(int number) override {
    Lane& lane = LaneOf(number, Phase::kDispatching);
    {
      std::unique_lock lock(shared_.mutex);
      BALEEN_RETURN_IF_ERROR(Broken());
      BALEEN_RETURN_IF_ERROR(AwaitAll(lock, ExchangePhase::kDispatch, [&](const Posted& peer) {
        return peer.dispatches[number] >= lane.dispatches;
      }));
    }
    lane.entries.clear();
    Box& box = shared_.boxes[rank_][number];
    for (std::int32_t source = 0; source < shape_.ranks; ++source) {
      for (const PlannedEntry& entry : box.entries[source]) {
        lane.entries.push_back({.slot = entry.slot, .row = source * shape_.rows_max + entry.row});
      }
    }
    lane.outputs.Resize(lane.entries.size() * shape_.output_bytes);
    lane.phase = Phase::kComputing;
    return ArrivedRows{.x = box.x.data(), .entries = lane.entries, .outputs = lane.outputs.data()};
  }

  absl::Status StartCombine(int number) override {
    BALEEN_RETURN_IF_ERROR(LockedBroken());
    Lane& lane = LaneOf(number, Phase::kComputing);
    const std::byte* from = lane.outputs.data();
    for (std::int32_t home = 0; home < shape_.ranks; ++home) {
      Box& box = shared_.boxes[home][number];
      const auto& entries = shared_.boxes[rank_][number].entries[home];
      for (const PlannedEntry& entry : entries) {
        std::memcpy(box.slots.data() + std::int64_t{entry.output} * shape_.output_bytes, from,
                    shape_.output_bytes);
        from += shape_.output_bytes;
      }
      AddBytes(ExchangePhase::kCombine, home, entries.size() * shape_.output_bytes);
    }
    const std::lock_guard lock(shared_.mutex);
    ++mine().combines[number];
    shared_.changed.notify_all();
    lane.phase = Phase::kCombining;
    return absl::OkStatus();
  }

  absl::StatusOr<const std::byte*> FinishCombine(int number) override {
    Lane& lane = LaneOf(number, Phase::kCombining);
    std::unique_lock lock(shared_.mutex);
    BALEEN_RETURN_IF_ERROR(Broken());
    BALEEN_RETURN_IF_ERROR(AwaitAll(lock, ExchangePhase::kCombine, [&](const Posted& peer) {
      return peer.combines[number] >= lane.dispatches;
    }));
    lane.phase = Phase::kIdle;
    return shared_.boxes[rank_][number].slots.data();
  }

 private:
  enum class Phase : std::uint8_t { kIdle, kDispatching, kComputing, kCombining };

  struct Lane {
    explicit Lane(const AllToAllShape& shape) : plan(shape) {}
    Phase phase = Phase::kIdle;
    std::uint64_t dispatches = 0;
    DispatchPlan plan;
    std::vector<ArrivedEntry> entries;
    Bytes outputs;
  };

  Posted& mine() { return shared_.posted[rank_]; }

  Lane& LaneOf(int number, Phase expected) {
    BALEEN_CHECK(number >= 0 && number < kLanes, "a lane that is there");
    Lane& lane = lanes_[number];
    BALEEN_CHECK(lane.phase == expected || !broken_.ok(),
                 "the calls of a lane come in their order");
    return lane;
  }

  static SteadyTime EndOf(absl::Duration limit) {
    return std::chrono::steady_clock::now() +
           absl::ToChronoNanoseconds(std::min(limit, absl::Hours(1)));
  }

  void AddBytes(ExchangePhase phase, std::int32_t peer, std::size_t bytes) {
    if (meter_ != nullptr && peer != rank_) meter_->AddBytes(phase, peer, bytes);
  }

  // Under the mutex.
  void Leave() {
    mine().gone = true;
    shared_.changed.notify_all();
  }

  // Under the mutex.
  absl::Status Broken() {
    if (broken_.ok() && !mine().aborted.ok()) return Break(mine().aborted);
    return broken_;
  }

  absl::Status LockedBroken() {
    const std::lock_guard lock(shared_.mutex);
    return Broken();
  }

  absl::Status Break(absl::Status why) {
    Leave();
    return broken_ = std::move(why);
  }

  static absl::Status HasGone(std::int32_t peer, ExchangePhase phase) {
    return absl::UnavailableError(
        fmt::format("all-to-all: rank {} has gone, in the {}", peer, NameOf(phase)));
  }

  // Says that something has been posted, and waits until it is there from all ranks.
  template <typename There>
  absl::Status AwaitAll(std::unique_lock<std::mutex>& lock, ExchangePhase phase, There there) {
    shared_.changed.notify_all();
    const SteadyTime begin = std::chrono::steady_clock::now();
    const SteadyTime end = EndOf(shape_.wait_max);
    for (std::int32_t peer = 0; peer < shape_.ranks;) {
      const Posted& posted = shared_.posted[peer];
      if (there(posted)) {
        if (meter_ != nullptr && peer != rank_) {
          meter_->AddWait(phase, peer, absl::FromChrono(std::chrono::steady_clock::now() - begin));
        }
        ++peer;
      } else if (posted.gone) {
        return Break(HasGone(peer, phase));
      } else if (shared_.changed.wait_until(lock, end) == std::cv_status::timeout) {
        return Break(absl::DeadlineExceededError(
            fmt::format("all-to-all: waited {} for rank {} in the {}",
                        absl::FormatDuration(shape_.wait_max), peer, NameOf(phase))));
      }
      BALEEN_RETURN_IF_ERROR(Broken());
    }
    return absl::OkStatus();
  }

  LoopbackGroup::Shared& shared_;
  const AllToAllShape shape_;
  const std::int32_t rank_;
  ExchangeMeter* const meter_;
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

std::unique_ptr<GroupEndpoint> LoopbackGroup::Join(std::int32_t rank, ExchangeMeter* meter) {
  BALEEN_CHECK(rank >= 0 && rank < shared_->shape.ranks, "a rank of the group");
  {
    const std::lock_guard lock(shared_->mutex);
    BALEEN_CHECK(!shared_->joined[rank], "each rank joins once");
    shared_->joined[rank] = true;
  }
  return std::make_unique<LoopbackEndpoint>(*shared_, rank, meter);
}

}  // namespace baleen::worker
