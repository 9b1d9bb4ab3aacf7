// Where the routers are: the seam to name resolution.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::worker {

class Discovery {
 public:
  virtual ~Discovery() = default;
  // The addresses (host:port) of all routers now, asked for again and again. May block for some
  // seconds at most. An error keeps the answer before it.
  virtual absl::StatusOr<std::vector<std::string>> Resolve() = 0;
};

// A list that never changes: --router on one machine, and tests.
class StaticDiscovery final : public Discovery {
 public:
  explicit StaticDiscovery(std::vector<std::string> addresses) : addresses_(std::move(addresses)) {}
  absl::StatusOr<std::vector<std::string>> Resolve() override { return addresses_; }

 private:
  const std::vector<std::string> addresses_;
};

}  // namespace baleen::worker
