#include "worker/expert_parallel/ucx/ucx_endpoint.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "worker/expert_parallel/dispatch_plan.h"
#include "worker/expert_parallel/ucx/row_copy.h"
#include "worker/expert_parallel/ucx/ucx_group.h"

namespace baleen::worker {
namespace {

std::int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Endpoint final : public UcxEndpoint {
 public:
  Endpoint(const UcxEndpointOptions& options, std::unique_ptr<UcxGroup> group)
      : shape_(options.shape),
        rank_(options.rank),
        meter_(options.meter),
        openings_(options.shape.ranks),
        lanes_{Lane(shape_), Lane(shape_)},
        group_(std::move(group)) {}

  // The group is connected.
  absl::Status Allocate() {
    const bool messages = group_->mapped_peers() < shape_.ranks - 1;
    const std::int64_t entries = std::int64_t{shape_.rows_max} * shape_.slots_per_row;
    const std::int64_t row_bytes = shape_.row_bytes + std::int64_t{sizeof(PlannedEntry)};
    const std::int64_t outputs = shape_.ranks * EntriesMax(shape_);
    for (Lane& lane : lanes_) {
      // Not registered as a whole: what all ranks together could ask for is much more than they do.
      BALEEN_ASSIGN_OR_RETURN(lane.outputs, group_->Allocate(outputs * shape_.output_bytes, false));
      BALEEN_ASSIGN_OR_RETURN(lane.arriving, group_->Allocate(entries * shape_.output_bytes, true));
      if (!messages) continue;
      BALEEN_ASSIGN_OR_RETURN(lane.leaving, group_->Allocate(entries * row_bytes, true));
    }
    return absl::OkStatus();
  }

  std::uint64_t dropped_frames() const override { return group_->dropped_frames(); }
  std::int32_t mapped_peers() const override { return group_->mapped_peers(); }

  absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& opening) override {
    BALEEN_RETURN_IF_ERROR(group_->Broken());
    const std::uint64_t count = ++group_->expected().openings;
    for (std::int32_t i = 1; i <= shape_.ranks; ++i) {
      const std::int32_t peer = (rank_ + i) % shape_.ranks;
      BALEEN_RETURN_IF_ERROR(SayOpening(peer, count, opening));
      AddBytes(ExchangePhase::kStepBarrier, peer, sizeof(Mailbox::Opening));
    }
    BALEEN_RETURN_IF_ERROR(group_->Await(ExchangePhase::kStepBarrier, 0, count));
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      const Mailbox::Opening said = group_->InboxOf(peer).opening[(count - 1) % 2];
      openings_[peer] = {.epoch = said.epoch,
                         .step = said.step,
                         .rows = said.rows,
                         .prepared = said.prepared,
                         .leaves = said.leaves != 0};
      const StepOpening& theirs = openings_[peer];
      if (theirs.epoch == opening.epoch && theirs.step == opening.step) continue;
      return group_->Break(absl::FailedPreconditionError(fmt::format(
          "all-to-all: rank {} is in epoch {} step {}, this rank {} in epoch {} step {}", peer,
          theirs.epoch, theirs.step, rank_, opening.epoch, opening.step)));
    }
    return openings_;
  }

  absl::StatusOr<bool> AwaitPeers(absl::Duration limit) override {
    return group_->AwaitPeers(limit);
  }
  void Interrupt() override { group_->Interrupt(); }
  void Abort(const absl::Status& why) override { group_->Abort(why); }

  absl::Status StartDispatch(int number, const DispatchRows& rows) override {
    BALEEN_RETURN_IF_ERROR(group_->Broken());
    Lane& lane = LaneOf(number, Phase::kIdle);
    BALEEN_RETURN_IF_ERROR(lane.plan.Assign(rows));
    BALEEN_RETURN_IF_ERROR(group_->AwaitSent(ExchangePhase::kDispatch, number));
    ExpectOutputs(number);
    ++group_->expected().dispatches[number];
    std::byte* leaving = lane.leaving;
    for (std::int32_t i = 1; i <= shape_.ranks; ++i) {
      const std::int32_t peer = (rank_ + i) % shape_.ranks;
      BALEEN_RETURN_IF_ERROR(group_->Mapped(peer) ? WriteRows(number, peer, rows)
                                                  : SendRows(number, peer, rows, leaving));
      AddBytes(ExchangePhase::kDispatch, peer, lane.plan.RowsTo(peer).size() * shape_.row_bytes);
    }
    lane.phase = Phase::kDispatching;
    return absl::OkStatus();
  }

  absl::StatusOr<ArrivedRows> FinishDispatch(int number) override {
    BALEEN_RETURN_IF_ERROR(group_->Broken());
    Lane& lane = LaneOf(number, Phase::kDispatching);
    // The outputs of the last combine must have left before new ones are written.
    BALEEN_RETURN_IF_ERROR(group_->AwaitSent(ExchangePhase::kCombine, number));
    BALEEN_RETURN_IF_ERROR(
        group_->Await(ExchangePhase::kDispatch, number, group_->expected().dispatches[number]));
    lane.planned.clear();
    lane.entries.clear();
    for (std::int32_t source = 0; source < shape_.ranks; ++source) {
      BALEEN_RETURN_IF_ERROR(TakeDispatch(number, source));
    }
    lane.begin[shape_.ranks] = lane.planned.size();
    lane.phase = Phase::kComputing;
    return ArrivedRows{
        .x = group_->InboxRows(0, number), .entries = lane.entries, .outputs = lane.outputs};
  }

  absl::Status StartCombine(int number) override {
    BALEEN_RETURN_IF_ERROR(group_->Broken());
    Lane& lane = LaneOf(number, Phase::kComputing);
    ++group_->expected().combines[number];
    for (std::int32_t i = 1; i <= shape_.ranks; ++i) {
      const std::int32_t home = (rank_ + i) % shape_.ranks;
      BALEEN_RETURN_IF_ERROR(group_->Mapped(home) ? WriteOutputs(number, home)
                                                  : SendOutputs(number, home));
      AddBytes(ExchangePhase::kCombine, home, OutputsFor(lane, home).size());
    }
    lane.phase = Phase::kCombining;
    return absl::OkStatus();
  }

  absl::StatusOr<const std::byte*> FinishCombine(int number) override {
    BALEEN_RETURN_IF_ERROR(group_->Broken());
    Lane& lane = LaneOf(number, Phase::kCombining);
    BALEEN_RETURN_IF_ERROR(
        group_->Await(ExchangePhase::kCombine, number, group_->expected().dispatches[number]));
    std::byte* const outputs = group_->Outputs(number);
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      if (!group_->CameAsMessage(peer, number)) continue;
      const std::byte* from = group_->expected().outputs[number][peer].data();
      for (const PlannedEntry& entry : lane.plan.EntriesTo(peer)) {
        std::memcpy(outputs + std::int64_t{entry.output} * shape_.output_bytes, from,
                    shape_.output_bytes);
        from += shape_.output_bytes;
      }
    }
    lane.phase = Phase::kIdle;
    return outputs;
  }

 private:
  enum class Phase : std::uint8_t { kIdle, kDispatching, kComputing, kCombining };

  struct Lane {
    explicit Lane(const AllToAllShape& shape) : plan(shape), begin(shape.ranks + 1) {
      planned.reserve(shape.ranks * EntriesMax(shape));
      entries.reserve(shape.ranks * EntriesMax(shape));
    }
    Phase phase = Phase::kIdle;
    DispatchPlan plan;
    std::vector<PlannedEntry> planned;  // what has arrived, by source
    std::vector<std::size_t> begin;     // [ranks + 1]: into planned
    std::vector<ArrivedEntry> entries;  // the same for the experts
    std::byte* outputs = nullptr;       // [entries][output_bytes]
    std::byte* arriving = nullptr;      // outputs that come home as messages, by peer
    std::byte* leaving = nullptr;       // rows that leave as messages, by peer
  };

  Lane& LaneOf(int number, Phase expected) {
    BALEEN_CHECK(number >= 0 && number < kLanes, "a lane that is there");
    Lane& lane = lanes_[number];
    BALEEN_CHECK(lane.phase == expected, "the calls of a lane come in their order");
    return lane;
  }

  void AddBytes(ExchangePhase phase, std::int32_t peer, std::size_t bytes) {
    if (meter_ != nullptr && peer != rank_) meter_->AddBytes(phase, peer, bytes);
  }

  absl::Status SayOpening(std::int32_t peer, std::uint64_t count, const StepOpening& opening) {
    if (!group_->Mapped(peer)) {
      ExchangeFrame frame = group_->NewFrame(FrameKind::kOpening, peer);
      frame.number = count;
      frame.step_epoch = opening.epoch;
      frame.step = opening.step;
      frame.rows = opening.rows;
      frame.entries = opening.prepared;
      frame.leaves = opening.leaves ? 1 : 0;
      return group_->Send(peer, ExchangePhase::kStepBarrier, frame, {});
    }
    Mailbox& outbox = group_->OutboxTo(peer);
    outbox.opening[(count - 1) % 2] = {.epoch = opening.epoch,
                                       .step = opening.step,
                                       .rows = opening.rows,
                                       .prepared = opening.prepared,
                                       .leaves = opening.leaves ? 1u : 0u};
    outbox.opened_ns.store(NowNs(), std::memory_order_relaxed);
    outbox.openings.store(count, std::memory_order_release);
    return group_->WakeIfAsleep(peer, ExchangePhase::kStepBarrier);
  }

  // Where the outputs of this dispatch arrive if they come as messages.
  void ExpectOutputs(int number) {
    Lane& lane = lanes_[number];
    std::byte* to = lane.arriving;
    for (std::int32_t peer = 0; peer < shape_.ranks; ++peer) {
      const std::size_t bytes = lane.plan.EntriesTo(peer).size() * shape_.output_bytes;
      group_->expected().outputs[number][peer] = {to, bytes};
      to += bytes;
    }
  }

  // Copies the rows for `peer` and then their entries; where they end.
  std::byte* CopyRows(const Lane& lane, std::int32_t peer, const DispatchRows& rows,
                      std::byte* to) const {
    const RowCopier copier(lane.plan.rows().size() * shape_.row_bytes);
    for (const std::int32_t row : lane.plan.RowsTo(peer)) {
      copier.Copy(to, rows.x + std::int64_t{row} * shape_.row_bytes, shape_.row_bytes);
      to += shape_.row_bytes;
    }
    copier.Finish();
    const auto entries = lane.plan.EntriesTo(peer);
    if (!entries.empty()) std::memcpy(to, entries.data(), entries.size_bytes());
    return to + entries.size_bytes();
  }

  absl::Status WriteRows(int number, std::int32_t peer, const DispatchRows& rows) {
    const Lane& lane = lanes_[number];
    CopyRows(lane, peer, rows, group_->OutboxRows(peer, number));
    Mailbox::Lane& to = group_->OutboxTo(peer).lanes[number];
    to.rows = lane.plan.RowsTo(peer).size();
    to.entries = lane.plan.EntriesTo(peer).size();
    to.dispatched_ns.store(NowNs(), std::memory_order_relaxed);
    to.dispatches.store(group_->expected().dispatches[number], std::memory_order_release);
    return group_->WakeIfAsleep(peer, ExchangePhase::kDispatch);
  }

  // As WriteRows, by way of `leaving`, which is moved on.
  absl::Status SendRows(int number, std::int32_t peer, const DispatchRows& rows,
                        std::byte*& leaving) {
    const Lane& lane = lanes_[number];
    ExchangeFrame frame = group_->NewFrame(FrameKind::kDispatch, peer);
    frame.lane = number;
    frame.number = group_->expected().dispatches[number];
    frame.rows = lane.plan.RowsTo(peer).size();
    frame.entries = lane.plan.EntriesTo(peer).size();
    std::byte* const begin = leaving;
    leaving = CopyRows(lane, peer, rows, begin);
    return group_->Send(peer, ExchangePhase::kDispatch, frame, {begin, leaving});
  }

  // Checks and copies what `source` says of its rows.
  absl::Status TakeDispatch(int number, std::int32_t source) {
    Lane& lane = lanes_[number];
    const Mailbox::Lane& said = group_->InboxOf(source).lanes[number];
    const DispatchCounts counts{.rows = said.rows, .entries = said.entries};
    absl::Status status = CheckDispatchCounts(shape_, source, counts);
    const std::size_t begin = lane.begin[source] = lane.planned.size();
    if (status.ok()) {
      const std::byte* from =
          group_->InboxRows(source, number) + std::int64_t{counts.rows} * shape_.row_bytes;
      status = TakeEntries(shape_, source, from, counts, lane.planned);
    }
    if (!status.ok()) return group_->Break(status);
    const std::int32_t first_row = source * group_->layout().rows_per_source;
    for (std::size_t i = begin; i < lane.planned.size(); ++i) {
      lane.entries.push_back(
          {.slot = lane.planned[i].slot, .row = first_row + lane.planned[i].row});
    }
    return absl::OkStatus();
  }

  std::span<const std::byte> OutputsFor(const Lane& lane, std::int32_t home) const {
    return {lane.outputs + lane.begin[home] * shape_.output_bytes,
            (lane.begin[home + 1] - lane.begin[home]) * shape_.output_bytes};
  }

  absl::Status WriteOutputs(int number, std::int32_t home) {
    const Lane& lane = lanes_[number];
    std::byte* const to = group_->OutputsOf(home, number);
    const RowCopier copier(lane.planned.size() * shape_.output_bytes);
    for (std::size_t i = lane.begin[home]; i < lane.begin[home + 1]; ++i) {
      copier.Copy(to + std::int64_t{lane.planned[i].output} * shape_.output_bytes,
                  lane.outputs + i * shape_.output_bytes, shape_.output_bytes);
    }
    copier.Finish();
    Mailbox::Combines& combines = group_->OutboxTo(home).combines[number];
    combines.combined_ns.store(NowNs(), std::memory_order_relaxed);
    combines.count.store(group_->expected().combines[number], std::memory_order_release);
    return group_->WakeIfAsleep(home, ExchangePhase::kCombine);
  }

  absl::Status SendOutputs(int number, std::int32_t home) {
    ExchangeFrame frame = group_->NewFrame(FrameKind::kCombine, home);
    frame.lane = number;
    frame.number = group_->expected().combines[number];
    return group_->Send(home, ExchangePhase::kCombine, frame, OutputsFor(lanes_[number], home));
  }

  const AllToAllShape shape_;
  const std::int32_t rank_;
  ExchangeMeter* const meter_;
  std::vector<StepOpening> openings_;
  std::array<Lane, kLanes> lanes_;
  std::unique_ptr<UcxGroup> group_;
};

}  // namespace

PendingUcxEndpoint::PendingUcxEndpoint(const UcxEndpointOptions& options,
                                       std::unique_ptr<UcxGroup> group)
    : options_(options), address_(group->address()), group_(std::move(group)) {}

PendingUcxEndpoint::~PendingUcxEndpoint() = default;

absl::StatusOr<std::unique_ptr<PendingUcxEndpoint>> PendingUcxEndpoint::Create(
    const UcxEndpointOptions& options) {
  BALEEN_ASSIGN_OR_RETURN(std::unique_ptr<UcxGroup> group, UcxGroup::Create(options));
  return std::unique_ptr<PendingUcxEndpoint>(new PendingUcxEndpoint(options, std::move(group)));
}

const std::string& PendingUcxEndpoint::address() const { return address_; }

absl::StatusOr<std::unique_ptr<UcxEndpoint>> PendingUcxEndpoint::ConnectUcx(
    std::uint64_t epoch, std::span<const std::string> addresses) {
  BALEEN_CHECK(group_ != nullptr, "an endpoint connects once");
  BALEEN_RETURN_IF_ERROR(group_->Connect(epoch, addresses));
  auto endpoint = std::make_unique<Endpoint>(options_, std::move(group_));
  BALEEN_RETURN_IF_ERROR(endpoint->Allocate());
  return endpoint;
}

absl::StatusOr<std::shared_ptr<GroupEndpoint>> PendingUcxEndpoint::Connect(
    std::uint64_t epoch, std::span<const std::string> addresses) {
  BALEEN_ASSIGN_OR_RETURN(std::shared_ptr<GroupEndpoint> endpoint, ConnectUcx(epoch, addresses));
  return endpoint;
}

}  // namespace baleen::worker
