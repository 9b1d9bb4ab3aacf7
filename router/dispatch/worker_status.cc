#include "router/dispatch/worker_status.h"

#include <fmt/format.h>

#include <string>

namespace baleen::router {

using contract::Reason;

Reason ReasonOfWorkerError(const absl::Status& status) {
  if (const auto reason = contract::ReasonOf(status)) {
    // Nobody asked for it: the worker gave the request up.
    return *reason == Reason::kCancelled ? Reason::kWorkerLost : *reason;
  }
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return Reason::kQueueFull;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
      return Reason::kWorkerLost;
    case absl::StatusCode::kDeadlineExceeded:
      return Reason::kDeadlineExceeded;
    default:
      return Reason::kInternal;
  }
}

absl::Status WorkerError(std::string_view worker, const absl::Status& status) {
  std::string message(status.message());
  if (const auto named = contract::ReasonOf(status)) {
    message.erase(0, contract::RowOf(*named).name.size() + 2);  // "name: "
  }
  return contract::MakeStatus(ReasonOfWorkerError(status),
                              fmt::format("worker {}: {}", worker, message));
}

bool CuredElsewhere(Reason reason) {
  return reason == Reason::kQueueFull || reason == Reason::kTransferFailed ||
         reason == Reason::kWorkerLost || reason == Reason::kDraining;
}

}  // namespace baleen::router
