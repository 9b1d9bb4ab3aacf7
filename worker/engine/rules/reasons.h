// Reasons for statuses from below, so that the router can map them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "proto/contract/status.h"

namespace baleen::worker {

// Those that have a reason keep it.
inline absl::Status WithReason(const absl::Status& status, contract::Reason reason) {
  if (contract::ReasonOf(status).has_value()) return status;
  return contract::MakeStatus(reason, std::string(status.message()));
}

}  // namespace baleen::worker
