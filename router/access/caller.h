// Who calls, as far as the router cares.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proto/contract/limits.h"

namespace baleen::router {

struct Caller {
  // Whom requests are counted for; "" when the router has no keys: everybody is one tenant.
  std::string tenant;
  std::string key_name;  // for logs; never the key
  // A request that asks for a higher priority is served with this one.
  std::uint32_t priority_max = contract::kPriorityMax;
  // Prompt and reply together, of all the tenant's keys; 0 = no limit.
  std::uint64_t tokens_per_minute = 0;
  std::vector<std::string> models;  // empty = all

  bool MayUse(std::string_view model) const {
    return models.empty() || std::find(models.begin(), models.end(), model) != models.end();
  }
};

// Shared with the key that it was made from: a request keeps its caller when the key goes.
using CallerPointer = std::shared_ptr<const Caller>;

}  // namespace baleen::router
