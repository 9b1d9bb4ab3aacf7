// Finds out whether a local cluster answers.
#pragma once

#include <string>

#include "tools/cli/cluster/supervisor.h"

namespace baleen::cli {

// Whether every worker of `cluster` is attached to its router and the router says that a model is
// ready. Takes a second at most.
// With an authority the router's client port speaks TLS.
bool ClusterAnswers(const RunningCluster& cluster, const std::string& tls_ca_file);

}  // namespace baleen::cli
