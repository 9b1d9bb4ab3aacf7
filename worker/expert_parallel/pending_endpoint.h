// An endpoint on its way into a group: it has an address, and waits for those of the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

// Each epoch has fresh ones. One thread at a time.
class PendingEndpoint {
 public:
  virtual ~PendingEndpoint() = default;

  // Opaque bytes, for the other ranks.
  virtual const std::string& address() const = 0;

  // Once: connects to all ranks of an epoch. `addresses` by rank, its own among them.
  // INVALID_ARGUMENT names the rank whose address is none, or is of another shape. UNAVAILABLE: a
  // rank can not be reached.
  virtual absl::StatusOr<std::shared_ptr<GroupEndpoint>> Connect(
      std::uint64_t epoch, std::span<const std::string> addresses) = 0;
};

using EndpointMaker = std::function<absl::StatusOr<std::unique_ptr<PendingEndpoint>>()>;

}  // namespace baleen::worker
