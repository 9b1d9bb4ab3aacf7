// One table: every reason for which a request fails, its gRPC code and its HTTP code.
// docs/errors.md is its prose.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baleen::contract {

enum class Reason : std::uint8_t {
  kInvalidRequest,    // a field is missing, malformed or out of range
  kPromptTooLong,     // prompt plus reply do not fit the context
  kModelNotFound,     // no such model
  kUnauthenticated,   // no API key, or not a good one
  kPermissionDenied,  // the key, or the certificate, does not allow it
  kRateLimited,       // the tenant's tokens of this minute are used: try again later
  kQueueFull,         // admission queue or worker capacity: try again later
  kNoWorker,          // no worker of a needed role is attached
  kWorkerLost,        // the worker that served the request is gone
  kTransferFailed,    // KV did not arrive or did not verify
  kDeadlineExceeded,  // the client's deadline, or a limit of this system
  kCancelled,         // the client closed the call
  kDraining,          // the process is shutting down
  kNumericFault,      // NaN or infinity in logits
  kInternal,          // a bug; carries an id to look for in the logs
};

struct ReasonRow {
  Reason reason;
  std::string_view name;  // stable, in errors and metric labels: "queue_full"
  absl::StatusCode grpc;
  int http;
  bool retryable;  // the same request may succeed later or elsewhere
};

// Every reason once, in the order of the enum.
std::span<const ReasonRow> ReasonTable();
const ReasonRow& RowOf(Reason reason);

// A status with the reason's code, whose message is "name: message"; the name can be read back by
// ReasonOf.
absl::Status MakeStatus(Reason reason, std::string_view message);

// The reason of a status made by MakeStatus; nullopt for others. The status may have crossed gRPC
// (code and message only).
std::optional<Reason> ReasonOf(const absl::Status& status);

// HTTP code for any status: by reason if there is one, else by code.
int HttpCode(const absl::Status& status);

}  // namespace baleen::contract
