// `baleen up`: runs a cluster on this machine until it is told to stop.
#pragma once

#include <string>

#include "tools/cli/session/local_cluster.h"

namespace baleen::cli {

struct UpOptions {
  ClusterOptions cluster;
  bool json = false;
  bool die_with_parent = false;
};

void AddUpOptions(CLI::App& command, UpOptions& options);

// On the main thread, which the children live as long as. 0 after a stop signal, 1 when the cluster
// can not come up.
int RunUp(const UpOptions& options);

// The line for scripts: {"grpc": .., "http": .., "metrics": [..], "workers": [{"name": .., "role":
// .., "metrics": .., "pid": ..}, ..], "groups": [{"name": .., "role": .., "ranks": .., "leader":
// ..},
// ..], "router": {..}}. "metrics" lists the router's page first.
std::string ReadyJson(const RunningCluster& cluster);

}  // namespace baleen::cli
