// The AllToAll of ranks that are threads of one process: for tests, and what the other
// implementations are compared with.
#pragma once

#include <memory>

#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

class LoopbackAllToAll;

// Where the ranks of a group meet. Outlives their endpoints. Thread-safe.
class LoopbackGroup {
 public:
  // INVALID_ARGUMENT: CheckAllToAllShape.
  static absl::StatusOr<std::unique_ptr<LoopbackGroup>> Make(const AllToAllShape& shape);
  ~LoopbackGroup();

  // The endpoint of `rank`, once. Its destruction is the death of the rank: peers that wait for it
  // get UNAVAILABLE at once.
  std::unique_ptr<AllToAll> Join(std::int32_t rank);

 private:
  friend class LoopbackAllToAll;
  struct Shared;
  explicit LoopbackGroup(const AllToAllShape& shape);

  std::unique_ptr<Shared> shared_;
};

}  // namespace baleen::worker
