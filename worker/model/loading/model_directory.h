// A model's directory, opened: what the model is, before any of its weights is read. A worker joins
// its group in between.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/model/checkpoint.h"
#include "worker/model/config.h"
#include "worker/model/experts/expert_shard.h"
#include "worker/model/model.h"

namespace baleen::worker {

struct ModelOptions {
  std::string directory;  // Hugging Face layout
  std::string name;       // empty = last component of the directory
  StepLimits limits;
  DispatchFormat dispatch = DispatchFormat::kBf16;
  // None: this rank holds all experts, and steps alone or in a group of one.
  std::optional<ExpertShard> shard;
  // Called by the loading thread after every tensor: bytes of the checkpoint that were read, and
  // how many there will be. May be empty.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

class ModelDirectory {
 public:
  // Reads the config and the headers of the weights, and computes the digest: seconds for a large
  // model. Of the options, directory, name and dispatch count. Errors as of LoadModelConfig and
  // Checkpoint::Open.
  static absl::StatusOr<std::unique_ptr<ModelDirectory>> Open(const ModelOptions& options);

  const ModelInfo& info() const { return info_; }
  const ModelConfig& config() const { return config_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  DispatchFormat dispatch() const { return dispatch_; }

 private:
  ModelDirectory() = default;

  ModelInfo info_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  DispatchFormat dispatch_ = DispatchFormat::kBf16;
};

}  // namespace baleen::worker
