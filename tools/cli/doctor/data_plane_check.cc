#include "tools/cli/doctor/data_plane_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "tools/cli/terminal/table.h"
#include "worker/kv_transfer/ucx_kv_transfer.h"
#include "worker/kv_transfer/ucx_report.h"

namespace baleen::cli {
namespace {

constexpr std::size_t kBlockBytes = 4u << 20;  // about a block of DeepSeek-R1
constexpr auto kTransferMax = std::chrono::seconds(5);
constexpr auto kLook = std::chrono::milliseconds(20);

// A rank that waits for the end of one transfer.
class Rank {
 public:
  absl::Status Open() {
    BALEEN_ASSIGN_OR_RETURN(
        transfer_, worker::UcxKvTransfer::Create(
                       {.limits = {.block_bytes = kBlockBytes}, .wake = [this] { Wake(); }}));
    return absl::OkStatus();
  }

  worker::UcxKvTransfer& transfer() { return *transfer_; }

  // The status of the final event, or DEADLINE_EXCEEDED.
  absl::Status AwaitEnd() {
    const auto limit = std::chrono::steady_clock::now() + kTransferMax;
    std::unique_lock lock(mutex_);
    while (std::chrono::steady_clock::now() < limit) {
      for (const worker::TransferEvent& event : transfer_->Poll()) {
        return event.kind == worker::TransferEventKind::kFailed ? event.status : absl::OkStatus();
      }
      woken_.wait_for(lock, kLook);
    }
    return absl::DeadlineExceededError("the block did not arrive within 5 s");
  }

 private:
  void Wake() {
    std::lock_guard lock(mutex_);
    woken_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable woken_;
  std::unique_ptr<worker::UcxKvTransfer> transfer_;
};

struct Moved {
  std::string lanes;
  absl::Duration took;
};

absl::StatusOr<Moved> MoveABlock() {
  std::vector<std::byte> sent(kBlockBytes, std::byte{0x5a});
  std::vector<std::byte> received(kBlockBytes);
  Rank sender;
  Rank receiver;
  BALEEN_RETURN_IF_ERROR(sender.Open());
  BALEEN_RETURN_IF_ERROR(receiver.Open());
  const contract::TransferId id{contract::RandomNonZero()};
  const absl::Duration begun = SystemClock().Monotonic();
  BALEEN_RETURN_IF_ERROR(receiver.transfer().Expect(id, {std::span(received)}));
  const std::string peer = receiver.transfer().LocalAddress();
  BALEEN_RETURN_IF_ERROR(
      sender.transfer().Send({.id = id, .peer_address = peer, .block = std::span(sent)}));
  BALEEN_RETURN_IF_ERROR(sender.transfer().Send(
      {.id = id, .peer_address = peer, .last = true, .blocks_total = 1, .manifest = "doctor"}));
  BALEEN_RETURN_IF_ERROR(receiver.AwaitEnd());
  BALEEN_RETURN_IF_ERROR(sender.AwaitEnd());
  if (received != sent) return absl::DataLossError("the block arrived changed");
  return Moved{.lanes = sender.transfer().Lanes(), .took = SystemClock().Monotonic() - begun};
}

}  // namespace

Check CheckDataPlane() {
  Check check{.name = "KV transfer"};
  const auto report = worker::ReportUcx();
  if (report.ok()) {
    check.detail = fmt::format("UCX {}: {}", report->version, fmt::join(report->transports, ", "));
    if (!report->chosen.empty()) check.detail += fmt::format(" (UCX_TLS={})", report->chosen);
  } else {
    check.detail = std::string(report.status().message());
  }
  const auto moved = MoveABlock();
  if (moved.ok()) {
    const auto us = static_cast<std::uint64_t>(absl::ToInt64Microseconds(moved->took));
    check.detail += fmt::format("; moved {} over {} in {}", FormatBytes(kBlockBytes), moved->lanes,
                                FormatMicroseconds(us));
    return check;
  }
  check.level = CheckLevel::kBad;
  check.detail += "; " + std::string(moved.status().message());
  check.fix =
      "unset UCX_TLS, free /dev/shm, or run mixed workers only (--mixed 1), which move no KV";
  return check;
}

}  // namespace baleen::cli
