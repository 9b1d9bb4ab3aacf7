#include "worker/expert_parallel/nccl/nccl_endpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

// The host endpoint's outputs say only that they are there.
constexpr std::int32_t kNoticeBytes = 8;

// While NCCL is waited for, the host endpoint is asked this often whether a peer has gone. It needs
// a moment to hear of it.
constexpr absl::Duration kLookAroundEvery = absl::Milliseconds(10);
constexpr absl::Duration kLookAround = absl::Milliseconds(1);

constexpr std::size_t kAlignment = 256;
constexpr std::size_t kPartnersNamedMax = 16;

// Entries that one rank can send to another for one lane, slots of a row being distinct.
std::size_t EntriesMax(const AllToAllShape& shape) {
  return std::size_t(shape.rows_max) * std::min(shape.slots_per_row, shape.slots_per_rank);
}

// The parts of a lane's device memory, each with its size aligned.
struct LaneBytes {
  explicit LaneBytes(const AllToAllShape& shape) {
    const auto aligned = [](std::size_t count, std::int32_t bytes) {
      return (count * bytes + kAlignment - 1) / kAlignment * kAlignment;
    };
    const std::size_t rows = shape.rows_max;
    const std::size_t own_entries = rows * shape.slots_per_row;
    packed_rows = aligned(rows * std::min(shape.slots_per_row, shape.ranks), shape.row_bytes);
    arrived_rows = aligned(rows * shape.ranks, shape.row_bytes);
    outputs = aligned(EntriesMax(shape) * shape.ranks, shape.output_bytes);
    packed_outputs = aligned(own_entries, shape.output_bytes);
    slots = packed_outputs;
  }
  std::size_t all() const { return packed_rows + arrived_rows + outputs + packed_outputs + slots; }

  std::size_t packed_rows, arrived_rows, outputs, packed_outputs, slots;
};

// Lays regions of `counts[rank] * bytes` one after the other.
template <typename Count>
void LayOut(std::byte* begin, std::int32_t bytes, std::vector<DeviceBytes>& regions, Count count) {
  for (std::size_t rank = 0; rank < regions.size(); ++rank) {
    regions[rank] = {.begin = begin, .size = std::size_t(count(rank)) * bytes};
    begin += regions[rank].size;
  }
}

absl::Status InPhase(const absl::Status& status, ExchangePhase phase) {
  return {status.code(), fmt::format("{}, while this rank was in the {}",
                                     std::string(status.message()), NameOf(phase))};
}

}  // namespace

AllToAllShape HostShape(const AllToAllShape& shape) {
  AllToAllShape host = shape;
  host.row_bytes = sizeof(ControlRow);
  host.output_bytes = kNoticeBytes;
  return host;
}

std::size_t NcclBufferBytes(const AllToAllShape& shape) { return kLanes * LaneBytes(shape).all(); }

NcclEndpoint::Lane::Lane(const AllToAllShape& shape)
    : plan(shape),
      control(shape.rows_max),
      rows_of(shape.ranks),
      entries_of(shape.ranks),
      sends(shape.ranks),
      receives(shape.ranks) {
  outputs_to.reserve(std::size_t(shape.rows_max) * shape.slots_per_row);
  entries.reserve(EntriesMax(shape) * shape.ranks);
}

NcclEndpoint::NcclEndpoint(const AllToAllShape& shape, Parts parts)
    : shape_(shape),
      rank_(parts.rank),
      host_(std::move(parts.host)),
      collectives_(std::move(parts.collectives)),
      meter_(parts.meter),
      lanes_{Lane(shape), Lane(shape)} {
  BALEEN_CHECK(rank_ >= 0 && rank_ < shape.ranks, "a rank of the group");
  const LaneBytes bytes(shape);
  std::byte* next = parts.buffers;
  const auto take = [&](std::size_t size) { return std::exchange(next, next + size); };
  for (Lane& lane : lanes_) {
    lane.packed_rows = take(bytes.packed_rows);
    lane.arrived_rows = take(bytes.arrived_rows);
    lane.outputs = take(bytes.outputs);
    lane.packed_outputs = take(bytes.packed_outputs);
    lane.slots = take(bytes.slots);
  }
}

absl::Status NcclEndpoint::StartDispatch(int number, const DispatchRows& rows) {
  BALEEN_RETURN_IF_ERROR(Broken());
  Lane& lane = LaneOf(number, Phase::kIdle);
  BALEEN_RETURN_IF_ERROR(lane.plan.Assign(rows));
  PlanControl(lane, rows.count);
  const DispatchRows control{.count = rows.count,
                             .x = reinterpret_cast<const std::byte*>(lane.control.data()),
                             .slots = rows.slots};
  if (absl::Status status = host_->StartDispatch(number, control); !status.ok()) {
    return Break(std::move(status));
  }
  lane.phase = Phase::kDispatching;
  if (rows.count == 0) return absl::OkStatus();
  absl::Status status = collectives_->FollowModel(number);
  if (status.ok()) {
    status = collectives_->CopyRows(number, {.kind = RowCopy::Kind::kGather,
                                             .from = rows.x,
                                             .to = lane.packed_rows,
                                             .places = lane.plan.rows(),
                                             .row_bytes = shape_.row_bytes});
  }
  return status.ok() ? status : Break(InPhase(status, ExchangePhase::kDispatch));
}

absl::StatusOr<ArrivedRows> NcclEndpoint::FinishDispatch(int number) {
  BALEEN_RETURN_IF_ERROR(Broken());
  const SteadyTime end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(shape_.wait_max);
  Lane& lane = LaneOf(number, Phase::kDispatching);
  const absl::StatusOr<ArrivedRows> arrived = host_->FinishDispatch(number);
  if (!arrived.ok()) return Break(arrived.status());
  if (absl::Status status = TakeArrivals(number, *arrived); !status.ok()) {
    return Break(std::move(status));
  }
  std::fill_n(arrived->outputs, arrived->entries.size() * kNoticeBytes, std::byte{});
  LayOut(lane.packed_rows, shape_.row_bytes, lane.sends,
         [&](std::size_t to) { return lane.plan.RowsTo(to).size(); });
  LayOut(lane.arrived_rows, shape_.row_bytes, lane.receives,
         [&](std::size_t from) { return lane.rows_of[from]; });
  BALEEN_RETURN_IF_ERROR(Exchange(number, ExchangePhase::kDispatch));
  BALEEN_RETURN_IF_ERROR(AwaitDone(number, ExchangePhase::kDispatch, end));
  lane.phase = Phase::kComputing;
  return ArrivedRows{.x = lane.arrived_rows, .entries = lane.entries, .outputs = lane.outputs};
}

absl::Status NcclEndpoint::StartCombine(int number) {
  BALEEN_RETURN_IF_ERROR(Broken());
  Lane& lane = LaneOf(number, Phase::kComputing);
  LayOut(lane.outputs, shape_.output_bytes, lane.sends,
         [&](std::size_t to) { return lane.entries_of[to]; });
  LayOut(lane.packed_outputs, shape_.output_bytes, lane.receives,
         [&](std::size_t from) { return lane.plan.EntriesTo(from).size(); });
  if (!lane.entries.empty()) {
    if (absl::Status status = collectives_->FollowModel(number); !status.ok()) {
      return Break(InPhase(status, ExchangePhase::kCombine));
    }
  }
  BALEEN_RETURN_IF_ERROR(Exchange(number, ExchangePhase::kCombine));
  // After the exchange: who hears it knows that ours is under way.
  if (absl::Status status = host_->StartCombine(number); !status.ok()) {
    return Break(std::move(status));
  }
  lane.phase = Phase::kCombining;
  return absl::OkStatus();
}

absl::StatusOr<const std::byte*> NcclEndpoint::FinishCombine(int number) {
  BALEEN_RETURN_IF_ERROR(Broken());
  const SteadyTime end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(shape_.wait_max);
  Lane& lane = LaneOf(number, Phase::kCombining);
  if (const auto notices = host_->FinishCombine(number); !notices.ok()) {
    return Break(notices.status());
  }
  if (!lane.outputs_to.empty()) {
    const absl::Status status = collectives_->CopyRows(number, {.kind = RowCopy::Kind::kScatter,
                                                                .from = lane.packed_outputs,
                                                                .to = lane.slots,
                                                                .places = lane.outputs_to,
                                                                .row_bytes = shape_.output_bytes});
    if (!status.ok()) return Break(InPhase(status, ExchangePhase::kCombine));
  }
  BALEEN_RETURN_IF_ERROR(AwaitDone(number, ExchangePhase::kCombine, end));
  lane.phase = Phase::kIdle;
  return lane.slots;
}

absl::StatusOr<std::span<const StepOpening>> NcclEndpoint::OpenStep(const StepOpening& mine) {
  BALEEN_RETURN_IF_ERROR(Broken());
  auto all = host_->OpenStep(mine);
  if (!all.ok()) return Break(all.status());
  epoch_ = mine.epoch;
  return all;
}

absl::StatusOr<bool> NcclEndpoint::AwaitPeers(absl::Duration limit) {
  BALEEN_RETURN_IF_ERROR(Broken());
  // The host endpoint's own note of an interrupt may have been used up within AwaitDone.
  const bool interrupted = interrupted_.exchange(false);
  auto waited_for = host_->AwaitPeers(interrupted ? absl::ZeroDuration() : limit);
  if (!waited_for.ok()) return Break(waited_for.status());
  return waited_for;
}

void NcclEndpoint::Interrupt() {
  interrupted_ = true;
  host_->Interrupt();
}

void NcclEndpoint::Abort(const absl::Status& why) {
  {
    const std::lock_guard lock(mutex_);
    if (aborted_.ok()) aborted_ = why;
  }
  host_->Abort(why);
  collectives_->Abort();
}

NcclEndpoint::Lane& NcclEndpoint::LaneOf(int number, Phase expected) {
  BALEEN_CHECK(number >= 0 && number < kLanes, "a lane that is there");
  Lane& lane = lanes_[number];
  BALEEN_CHECK(lane.phase == expected, "the calls of a lane come in their order");
  return lane;
}

absl::Status NcclEndpoint::Aborted() {
  const std::lock_guard lock(mutex_);
  return aborted_;
}

absl::Status NcclEndpoint::Broken() {
  if (!broken_.ok()) return broken_;
  absl::Status aborted = Aborted();
  return aborted.ok() ? aborted : Break(std::move(aborted));
}

// Peers hear of it through the host endpoint, at the latest when it is destroyed.
absl::Status NcclEndpoint::Break(absl::Status why) {
  broken_ = std::move(why);
  collectives_->Abort();
  host_->Abort(broken_);
  return broken_;
}

// What the host endpoint sends in the place of rows, and where the outputs will go.
void NcclEndpoint::PlanControl(Lane& lane, std::int64_t rows) {
  ++lane.dispatch;
  for (std::int64_t row = 0; row < rows; ++row) {
    lane.control[row] = {.epoch = epoch_,
                         .dispatch = lane.dispatch,
                         .source = rank_,
                         .row = static_cast<std::int32_t>(row)};
  }
  lane.outputs_to.clear();
  for (const PlannedEntry& entry : lane.plan.entries()) lane.outputs_to.push_back(entry.output);
}

// Makes rows_of, entries_of and entries from what the host endpoint has brought; nothing of it is
// believed before it is checked.
absl::Status NcclEndpoint::TakeArrivals(int number, const ArrivedRows& arrived) {
  Lane& lane = lanes_[number];
  std::ranges::fill(lane.rows_of, 0);
  std::ranges::fill(lane.entries_of, 0);
  lane.entries.clear();
  ControlRow said{.source = 0, .row = -1};
  std::int32_t host_row = -1;
  std::int32_t row = -1;
  for (const ArrivedEntry& entry : arrived.entries) {
    if (entry.row != host_row) {
      const ControlRow before = said;
      host_row = entry.row;
      std::memcpy(&said, arrived.x + std::int64_t{host_row} * sizeof(said), sizeof(said));
      BALEEN_RETURN_IF_ERROR(CheckControl(number, said, before));
      ++lane.rows_of[said.source];
      ++row;
    }
    BALEEN_RETURN_IF_ERROR(CheckEntry(lane, said.source, entry.slot));
    ++lane.entries_of[said.source];
    lane.entries.push_back({.slot = entry.slot, .row = row});
  }
  return absl::OkStatus();
}

absl::Status NcclEndpoint::CheckControl(int number, const ControlRow& said,
                                        const ControlRow& before) const {
  if (said.source < before.source || said.source >= shape_.ranks) {
    return absl::FailedPreconditionError(
        fmt::format("all-to-all: a row of the dispatch says that it is of rank {}, not {} to {}",
                    said.source, before.source, shape_.ranks - 1));
  }
  if (said.epoch != epoch_ || said.dispatch != lanes_[number].dispatch) {
    return absl::FailedPreconditionError(fmt::format(
        "all-to-all: rank {} is in epoch {} dispatch {} of lane {}, this rank {} in epoch {} "
        "dispatch {}",
        said.source, said.epoch, said.dispatch, number, rank_, epoch_, lanes_[number].dispatch));
  }
  const std::int32_t least = said.source == before.source ? before.row + 1 : 0;
  if (said.row < least || said.row >= shape_.rows_max) {
    return absl::FailedPreconditionError(
        fmt::format("all-to-all: rank {} sends row {} in the dispatch, not {} to {}", said.source,
                    said.row, least, shape_.rows_max - 1));
  }
  return absl::OkStatus();
}

absl::Status NcclEndpoint::CheckEntry(const Lane& lane, std::int32_t source,
                                      std::int32_t slot) const {
  if (slot < 0 || slot >= shape_.slots_per_rank) {
    return absl::FailedPreconditionError(
        fmt::format("all-to-all: rank {} sends expert slot {} in the dispatch, not 0 to {}", source,
                    slot, shape_.slots_per_rank - 1));
  }
  if (std::size_t(lane.entries_of[source]) == EntriesMax(shape_)) {
    return absl::FailedPreconditionError(
        fmt::format("all-to-all: rank {} sends more than {} entries in the dispatch", source,
                    EntriesMax(shape_)));
  }
  return absl::OkStatus();
}

// Hands lane.sends and lane.receives to NCCL.
absl::Status NcclEndpoint::Exchange(int number, ExchangePhase phase) {
  Lane& lane = lanes_[number];
  bool any = false;
  for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
    any |= lane.sends[peer].size > 0 || lane.receives[peer].size > 0;
    if (meter_ != nullptr) meter_->AddBytes(phase, peer, lane.sends[peer].size);
  }
  if (!any) return absl::OkStatus();
  const absl::Status status = collectives_->Exchange(number, lane.sends, lane.receives);
  return status.ok() ? status : Break(InPhase(status, phase));
}

absl::Status NcclEndpoint::AwaitDone(int number, ExchangePhase phase, SteadyTime end) {
  while (true) {
    const absl::Duration left = absl::FromChrono(end - std::chrono::steady_clock::now());
    const absl::StatusOr<bool> done =
        collectives_->Await(number, std::clamp(left, absl::ZeroDuration(), kLookAroundEvery));
    if (done.ok() && *done) return absl::OkStatus();
    const auto peers = host_->AwaitPeers(kLookAround);
    if (absl::Status aborted = Aborted(); !aborted.ok()) return Break(std::move(aborted));
    // A peer that has gone explains an error of NCCL better than NCCL does.
    if (!peers.ok()) return Break(InPhase(peers.status(), phase));
    if (!done.ok()) {
      return Break({done.status().code(),
                    fmt::format("{}, in the {} with {}", std::string(done.status().message()),
                                NameOf(phase), PartnersOf(lanes_[number]))});
    }
    if (left <= absl::ZeroDuration()) {
      return Break(absl::DeadlineExceededError(fmt::format(
          "all-to-all: waited {} in the {} with {}; NCCL does not say for which",
          absl::FormatDuration(shape_.wait_max), NameOf(phase), PartnersOf(lanes_[number]))));
    }
  }
}

// The other ranks of the exchange under way, for errors.
std::string NcclEndpoint::PartnersOf(const Lane& lane) const {
  std::vector<std::int32_t> partners;
  for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
    const bool exchanges = lane.sends[peer].size > 0 || lane.receives[peer].size > 0;
    if (exchanges && peer != rank_) partners.push_back(peer);
  }
  if (partners.empty()) return "no other rank";
  const std::size_t named = std::min(partners.size(), kPartnersNamedMax);
  std::string text = fmt::format("rank{} {}", partners.size() == 1 ? "" : "s",
                                 fmt::join(partners.begin(), partners.begin() + named, ", "));
  if (named < partners.size()) text += fmt::format(" and {} more", partners.size() - named);
  return text;
}

}  // namespace baleen::worker
