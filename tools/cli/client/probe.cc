#include "tools/cli/client/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "tools/cli/client/http_get.h"
#include "tools/cli/client/inference_client.h"

namespace baleen::cli {
namespace {

constexpr absl::Duration kCallMax = absl::Milliseconds(500);

bool AllAttached(const RunningCluster& cluster) {
  const auto page = HttpGet(cluster[0].ready.at("metrics"), "/metrics", kCallMax);
  if (!page.ok()) return false;
  for (const char* role : {"prefill", "decode", "mixed"}) {
    const auto wanted = std::count_if(cluster.begin(), cluster.end(),
                                      [&](const auto& child) { return child.spec.role == role; });
    const auto attached =
        SampleOf(*page, fmt::format("baleen_router_workers_attached{{role=\"{}\"}}", role));
    if (attached.value_or(0) < static_cast<double>(wanted)) return false;
  }
  return true;
}

}  // namespace

bool ClusterAnswers(const RunningCluster& cluster, const std::string& tls_ca_file) {
  if (!AllAttached(cluster)) return false;
  const auto client =
      InferenceClient::Open({.address = cluster[0].ready.at("grpc"), .tls_ca_file = tls_ca_file});
  if (!client.ok()) return false;
  const auto models = (*client)->ListModels(kCallMax);
  // Who is asked for a key has been answered.
  if (absl::IsUnauthenticated(models.status())) return true;
  return models.ok() && std::any_of(models->models().begin(), models->models().end(),
                                    [](const v1::ModelInfo& model) { return model.ready(); });
}

}  // namespace baleen::cli
