// Failures as clients may see them.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "proto/contract/status.h"

namespace baleen::router {

// `status` with a reason: one without is a bug of ours.
inline absl::Status WithReason(const absl::Status& status) {
  if (status.ok() || contract::ReasonOf(status)) return status;
  return contract::MakeStatus(contract::Reason::kInternal, std::string(status.message()));
}

}  // namespace baleen::router
