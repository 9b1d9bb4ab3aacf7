// A rank's end of its group where rows are in GPU memory and NCCL carries them.
//
// NCCL moves bytes whose number both ends must know, says nothing about who keeps it waiting, and
// cannot wake a sleeping rank. So a second endpoint over host memory (UCX) goes along: it is the
// step barrier, and its dispatch carries, for every row, a few bytes that say whose it is, with the
// row's expert slots. From these a rank knows what NCCL will bring, checks it against the shape,
// and only then receives; its combine says that a peer has handed its outputs to NCCL.
//
//   StartDispatch   host: control rows out        device: rows packed by destination
//   FinishDispatch  host: control rows in, checked  device: rows sent and received
//   StartCombine    host: notice out              device: outputs sent and received
//   FinishCombine   host: notices in              device: outputs put in place
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/dispatch_plan.h"
#include "worker/expert_parallel/exchange_meter.h"
#include "worker/expert_parallel/nccl/collectives.h"

namespace baleen::worker {

// What travels over the host endpoint in the place of a row.
struct ControlRow {
  std::uint64_t epoch = 0;     // of the last OpenStep
  std::uint64_t dispatch = 0;  // counts up from 1 in a lane
  std::int32_t source = 0;     // rank; ascending over the rows that arrive
  std::int32_t row = 0;        // at home: 0 to rows_max - 1, ascending over the rows of a source
};

// The shape of the host endpoint that goes along with an endpoint of `shape`.
AllToAllShape HostShape(const AllToAllShape& shape);

// The device memory that an endpoint of `shape` needs. The worst case: all rows of all ranks come
// to one. Precondition: CheckAllToAllShape.
std::size_t NcclBufferBytes(const AllToAllShape& shape);

// In device memory: DispatchRows::x, ArrivedRows::x and outputs, what FinishCombine returns. In
// host memory: DispatchRows::slots, ArrivedRows::entries.
//
// x and outputs may still be under way in the model's stream when StartDispatch and StartCombine
// are called. What a Finish call returns is complete. All ranks make the calls of both lanes in the
// same order.
//
// A peer that has gone is named as soon as the host endpoint knows of it, also within a wait for
// NCCL. One that stands still is named where the host endpoint waits for it; where NCCL does, the
// error names all ranks that it may be.
class NcclEndpoint final : public GroupEndpoint {
 public:
  struct Parts {
    std::int32_t rank = 0;
    std::shared_ptr<GroupEndpoint> host;       // of HostShape, the same rank and epoch
    std::unique_ptr<Collectives> collectives;  // the same rank and epoch
    // [NcclBufferBytes] of device memory, aligned to 256; lives as long as `collectives`.
    std::byte* buffers = nullptr;
    // Borrowed, may be null: gets the bytes over NCCL. The host endpoint's own meter has the waits
    // for each peer.
    ExchangeMeter* meter = nullptr;
  };

  // Precondition: CheckAllToAllShape.
  NcclEndpoint(const AllToAllShape& shape, Parts parts);

  absl::Status StartDispatch(int lane, const DispatchRows& rows) override;
  absl::StatusOr<ArrivedRows> FinishDispatch(int lane) override;
  absl::Status StartCombine(int lane) override;
  absl::StatusOr<const std::byte*> FinishCombine(int lane) override;

  absl::StatusOr<std::span<const StepOpening>> OpenStep(const StepOpening& mine) override;
  // May end early once more than Interrupt was called.
  absl::StatusOr<bool> AwaitPeers(absl::Duration limit) override;
  void Interrupt() override;
  void Abort(const absl::Status& why) override;

 private:
  using SteadyTime = std::chrono::steady_clock::time_point;
  enum class Phase : std::uint8_t { kIdle, kDispatching, kComputing, kCombining };

  struct Lane {
    explicit Lane(const AllToAllShape& shape);

    Phase phase = Phase::kIdle;
    std::uint64_t dispatch = 0;
    DispatchPlan plan;
    std::vector<ControlRow> control;       // [rows_max]
    std::vector<std::int32_t> outputs_to;  // of each of the plan's entries: its place at home
    std::vector<std::int32_t> rows_of;     // [ranks]: how many have come from it
    std::vector<std::int32_t> entries_of;  // [ranks]: likewise
    std::vector<ArrivedEntry> entries;
    // Of the exchange under way, [ranks].
    std::vector<DeviceBytes> sends;
    std::vector<DeviceBytes> receives;
    // Device memory.
    std::byte* packed_rows = nullptr;     // in the order of the plan
    std::byte* arrived_rows = nullptr;    // in the order of source and row
    std::byte* outputs = nullptr;         // in the order of `entries`
    std::byte* packed_outputs = nullptr;  // in the order of the plan
    std::byte* slots = nullptr;           // [rows][slots_per_row], where the model reads them
  };

  Lane& LaneOf(int number, Phase expected);
  absl::Status Broken();
  absl::Status Aborted();
  absl::Status Break(absl::Status why);

  void PlanControl(Lane& lane, std::int64_t rows);
  absl::Status TakeArrivals(int number, const ArrivedRows& arrived);
  absl::Status CheckControl(int number, const ControlRow& said, const ControlRow& before) const;
  absl::Status CheckEntry(const Lane& lane, std::int32_t source, std::int32_t slot) const;

  absl::Status Exchange(int number, ExchangePhase phase);
  absl::Status AwaitDone(int number, ExchangePhase phase, SteadyTime end);
  std::string PartnersOf(const Lane& lane) const;

  const AllToAllShape shape_;
  const std::int32_t rank_;
  // Destroyed in reverse: peers hear of our going when nothing of ours runs on the device.
  const std::shared_ptr<GroupEndpoint> host_;
  const std::unique_ptr<Collectives> collectives_;
  ExchangeMeter* const meter_;
  std::array<Lane, kLanes> lanes_;
  std::uint64_t epoch_ = 0;
  absl::Status broken_;
  std::atomic<bool> interrupted_ = false;
  std::mutex mutex_;
  absl::Status aborted_;  // under mutex_
};

}  // namespace baleen::worker
