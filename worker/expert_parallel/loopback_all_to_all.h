// The endpoints of ranks that are threads of one process: for tests, and what the other
// implementations are compared with.
#pragma once

#include <memory>

#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/exchange_meter.h"

namespace baleen::worker {

class LoopbackEndpoint;

// Where the ranks of a group meet. Outlives their endpoints. Thread-safe.
class LoopbackGroup {
 public:
  // INVALID_ARGUMENT: CheckAllToAllShape.
  static absl::StatusOr<std::unique_ptr<LoopbackGroup>> Make(const AllToAllShape& shape);
  ~LoopbackGroup();

  // The endpoint of `rank`, once. `meter` is borrowed and may be null.
  std::unique_ptr<GroupEndpoint> Join(std::int32_t rank, ExchangeMeter* meter = nullptr);

 private:
  friend class LoopbackEndpoint;
  struct Shared;
  explicit LoopbackGroup(const AllToAllShape& shape);

  std::unique_ptr<Shared> shared_;
};

}  // namespace baleen::worker
