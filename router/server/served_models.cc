#include "router/server/served_models.h"

#include <map>

namespace baleen::router {

std::vector<ModelListing> ListModels(const ClusterView& view) {
  struct Found {
    ModelIdentity identity;
    bool prefill = false;
    bool decode = false;
  };
  std::map<std::string, Found> found;
  for (const WorkerView& worker : view.workers) {
    Found& model = found[worker.info->model.name];
    model.identity = worker.info->model;
    const bool serves = !worker.suspect && worker.load.takes_requests();
    model.prefill = model.prefill || (serves && worker.info->role != Role::kDecode);
    model.decode = model.decode || (serves && worker.info->role != Role::kPrefill);
  }
  std::vector<ModelListing> models;
  for (auto& [name, model] : found) {
    models.push_back({std::move(model.identity), model.prefill && model.decode});
  }
  return models;
}

}  // namespace baleen::router
