// Propagation of absl::Status: the only macros of this kind in the project.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns the status of `expression` from the enclosing function unless it is OK.
#define BALEEN_RETURN_IF_ERROR(expression)                                \
  do {                                                                    \
    if (absl::Status baleen_status = (expression); !baleen_status.ok()) { \
      return baleen_status;                                               \
    }                                                                     \
  } while (false)

#define BALEEN_CONCAT_INNER(a, b) a##b
#define BALEEN_CONCAT(a, b) BALEEN_CONCAT_INNER(a, b)

// BALEEN_ASSIGN_OR_RETURN(auto value, ComputeStatusOr()): assigns, or returns the error.
#define BALEEN_ASSIGN_OR_RETURN(target, expression)                 \
  auto BALEEN_CONCAT(baleen_or_, __LINE__) = (expression);          \
  if (!BALEEN_CONCAT(baleen_or_, __LINE__).ok()) {                  \
    return std::move(BALEEN_CONCAT(baleen_or_, __LINE__)).status(); \
  }                                                                 \
  target = *std::move(BALEEN_CONCAT(baleen_or_, __LINE__))
