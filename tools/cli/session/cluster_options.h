// The options of a cluster on this machine, the same for every command that runs one.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tools/cli/cluster/spec/cluster_spec.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace baleen::cli {

struct ClusterOptions {
  ClusterSpec spec;
  std::optional<std::uint32_t> ready_seconds;  // see ReadyWithin
};

// --model, --prefill, --decode, --mixed, --listen, --kv-blocks and the like.
void AddClusterOptions(CLI::App& command, ClusterOptions& options);

// An option that takes what ParseTopology takes; an error names it and the limits.
CLI::Option* AddTopology(CLI::App& command, const char* name, Topology& value,
                         const char* description);

// One worker of each kind when no number of workers was given. Call from the command's
// parse_complete_callback.
void ChooseWorkers(const CLI::App& command, ClusterOptions& options);

// INVALID_ARGUMENT names the option and the limit: a cluster that can not answer, or a group whose
// ranks can not share the model's experts. A model that can not be read is left to the processes,
// which say so.
absl::Status CheckClusterOptions(const ClusterOptions& options);

// For the cluster to come up, and for a process to come back: as given, else a minute and the time
// to read the weights from a slow disk.
absl::Duration ReadyWithin(const ClusterOptions& options);

}  // namespace baleen::cli
