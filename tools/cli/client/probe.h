// Finds out whether a local cluster answers.
#pragma once

#include "tools/cli/cluster/supervisor.h"

namespace baleen::cli {

// Whether every worker of `cluster` is attached to its router and the router says that a model is
// ready. Takes a second at most.
bool ClusterAnswers(const RunningCluster& cluster);

}  // namespace baleen::cli
