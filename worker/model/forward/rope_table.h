// Cosines and sines of every position of the context.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"

namespace baleen::worker {

struct RopeTable {
  std::int64_t pairs = 0;
  Array<float> cosines;  // [context][pairs], times the attention factor of YaRN
  Array<float> sines;
};

// Computed as docs/arithmetic.md ("RoPE") states, so that it is the same on every machine.
absl::StatusOr<RopeTable> MakeRopeTable(const ModelConfig& config, Device& device);

}  // namespace baleen::worker
