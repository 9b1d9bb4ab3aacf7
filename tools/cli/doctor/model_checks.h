// Is a model directory complete, sound, and small enough for this machine.
#pragma once

#include <cstdint>
#include <string>

#include "tools/cli/doctor/check.h"

namespace baleen::cli {

struct ModelDemand {
  std::uint32_t workers = 2;    // on this machine, each with weights and KV of its own
  std::uint32_t kv_blocks = 0;  // of each; 0 = what a worker takes by itself
};

// Config, weights, tokenizer, and the memory that `demand` needs. A checkpoint of up to 1 GiB is
// loaded as a worker loads it; of a larger one only the headers are read.
Checks CheckModel(const std::string& directory, const ModelDemand& demand);

}  // namespace baleen::cli
