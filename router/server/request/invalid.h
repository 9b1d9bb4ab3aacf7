// How a field out of its range is refused.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "absl/status/status.h"
#include "proto/contract/status.h"

namespace baleen::router {

template <typename... Args>
absl::Status Invalid(fmt::format_string<Args...> format, Args&&... args) {
  return contract::MakeStatus(contract::Reason::kInvalidRequest,
                              fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace baleen::router
