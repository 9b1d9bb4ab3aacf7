// Is a model directory complete, sound, and small enough for this machine.
#pragma once

#include <cstdint>
#include <string>

#include "tools/cli/cluster/spec/topology.h"
#include "tools/cli/doctor/check.h"

namespace baleen::cli {

struct ModelDemand {
  // On this machine, each with KV of its own; the ranks of a group share the experts.
  Topology workers = {.groups = 2};
  std::uint32_t kv_blocks = 0;  // of each; 0 = what a worker takes by itself
};

// Config, weights, tokenizer, whether the ranks can share the experts, and the memory that `demand`
// needs. A checkpoint of up to 1 GiB is
// loaded as a worker loads it; of a larger one only the headers are read.
Checks CheckModel(const std::string& directory, const ModelDemand& demand);

}  // namespace baleen::cli
