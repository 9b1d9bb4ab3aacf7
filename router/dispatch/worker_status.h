// Turns the error of a worker into the one that the client gets.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "proto/contract/status.h"

namespace baleen::router {

// The reason of an error that a worker reported: the one it named, else the closest to its code.
contract::Reason ReasonOfWorkerError(const absl::Status& status);

// "reason: worker NAME: message".
absl::Status WorkerError(std::string_view worker, const absl::Status& status);

// Whether another attempt on another worker may succeed.
bool CuredElsewhere(contract::Reason reason);

}  // namespace baleen::router
