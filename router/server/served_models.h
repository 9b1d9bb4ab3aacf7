// What ListModels and /v1/models answer.
#pragma once

#include <string>
#include <vector>

#include "router/policy/cluster_view.h"

namespace baleen::router {

struct ModelListing {
  ModelIdentity identity;
  // Some prefill-capable and some decode-capable worker takes requests now.
  bool ready = false;
};

// The models of all attached workers, by name.
std::vector<ModelListing> ListModels(const ClusterView& view);

}  // namespace baleen::router
