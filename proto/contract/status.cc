#include "proto/contract/status.h"

#include <fmt/format.h>

#include <array>

#include "observability/base/check.h"

namespace baleen::contract {
namespace {

using absl::StatusCode;

constexpr std::array kTable = {
    ReasonRow{Reason::kInvalidRequest, "invalid_request", StatusCode::kInvalidArgument, 400, false},
    ReasonRow{Reason::kPromptTooLong, "prompt_too_long", StatusCode::kInvalidArgument, 400, false},
    ReasonRow{Reason::kModelNotFound, "model_not_found", StatusCode::kNotFound, 404, false},
    ReasonRow{Reason::kUnauthenticated, "unauthenticated", StatusCode::kUnauthenticated, 401,
              false},
    ReasonRow{Reason::kPermissionDenied, "permission_denied", StatusCode::kPermissionDenied, 403,
              false},
    ReasonRow{Reason::kRateLimited, "rate_limited", StatusCode::kResourceExhausted, 429, true},
    ReasonRow{Reason::kQueueFull, "queue_full", StatusCode::kResourceExhausted, 429, true},
    ReasonRow{Reason::kNoWorker, "no_worker", StatusCode::kUnavailable, 503, true},
    ReasonRow{Reason::kWorkerLost, "worker_lost", StatusCode::kUnavailable, 503, true},
    ReasonRow{Reason::kTransferFailed, "transfer_failed", StatusCode::kUnavailable, 503, true},
    ReasonRow{Reason::kDeadlineExceeded, "deadline_exceeded", StatusCode::kDeadlineExceeded, 504,
              false},
    ReasonRow{Reason::kCancelled, "cancelled", StatusCode::kCancelled, 499, false},
    ReasonRow{Reason::kDraining, "draining", StatusCode::kUnavailable, 503, true},
    ReasonRow{Reason::kNumericFault, "numeric_fault", StatusCode::kInternal, 500, false},
    ReasonRow{Reason::kInternal, "internal", StatusCode::kInternal, 500, false},
};

constexpr bool InEnumOrder() {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<std::size_t>(kTable[i].reason) != i) return false;
  }
  return true;
}
static_assert(InEnumOrder(), "RowOf indexes by the enum");

}  // namespace

std::span<const ReasonRow> ReasonTable() { return kTable; }

const ReasonRow& RowOf(Reason reason) {
  const auto index = static_cast<std::size_t>(reason);
  BALEEN_CHECK(index < kTable.size(), "every reason has a row");
  return kTable[index];
}

absl::Status MakeStatus(Reason reason, std::string_view message) {
  const ReasonRow& row = RowOf(reason);
  return absl::Status(row.grpc, fmt::format("{}: {}", row.name, message));
}

std::optional<Reason> ReasonOf(const absl::Status& status) {
  const std::string message(status.message());
  const std::size_t colon = message.find(": ");
  if (status.ok() || colon == std::string::npos) return std::nullopt;
  const std::string_view name = std::string_view(message).substr(0, colon);
  for (const ReasonRow& row : kTable) {
    if (row.name == name && row.grpc == status.code()) return row.reason;
  }
  return std::nullopt;
}

int HttpCode(const absl::Status& status) {
  if (status.ok()) return 200;
  if (const auto reason = ReasonOf(status)) return RowOf(*reason).http;
  for (const ReasonRow& row : kTable) {
    if (row.grpc == status.code()) return row.http;
  }
  return 500;
}

}  // namespace baleen::contract
