// DeepSeek-V2 and -V3 (R1, V3.1, V2-Lite, Moonlight, Kimi-K2): the forward pass.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/forward/batch.h"
#include "worker/model/forward/mla.h"
#include "worker/model/forward/mlp.h"
#include "worker/model/forward/moe.h"
#include "worker/model/forward/sampler.h"
#include "worker/model/loading/model_directory.h"
#include "worker/model/model.h"
#include "worker/model/weights.h"

namespace baleen::worker {

class DeepSeekModel final : public Model {
 public:
  // Reads the weights, and takes all memory that steps will need. Of the options, limits, shard and
  // progress count. `device` must outlive the model. Errors name the file, field or tensor;
  // kResourceExhausted: not enough memory.
  static absl::StatusOr<std::unique_ptr<DeepSeekModel>> Load(
      std::unique_ptr<ModelDirectory> directory, const ModelOptions& options, Device& device);

  // ModelDirectory::Open and Load.
  static absl::StatusOr<std::unique_ptr<DeepSeekModel>> Load(const ModelOptions& options,
                                                             Device& device);

  const ModelInfo& info() const override { return info_; }
  const ModelConfig& config() const { return config_; }

  // kInvalidArgument: a sequence breaks the limits, the context, the vocabulary or its block table.
  absl::Status Step(std::span<const SequenceStep> sequences, KvView kv, const GroupStep& group,
                    std::span<SampledToken> sampled) override;

 private:
  DeepSeekModel(Device& device, ModelConfig config, const StepLimits& limits)
      : ops_(device.ops()), config_(std::move(config)), limits_(limits) {}

  absl::Status Allocate(Device& device);
  void RunLayer(std::size_t index, const KvView& kv);

  const kernels::OpTable& ops_;
  const ModelConfig config_;
  const StepLimits limits_;
  ModelInfo info_;
  ModelWeights weights_;

  Batch batch_;
  Mla mla_;
  Mlp mlp_;
  std::optional<Moe> moe_;  // none when all layers are dense
  Sampler sampler_;
  Array<float> hidden_;               // [rows][hidden]: the residual stream
  Array<float> normed_;               // [rows][hidden]
  Array<std::uint16_t> normed_bf16_;  // bf16 [rows][hidden]
  Array<float> delta_;                // [rows][hidden]: what a block adds to the residual stream
};

}  // namespace baleen::worker
