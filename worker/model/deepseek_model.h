// DeepSeek-V2 and -V3 (R1, V3.1, V2-Lite, Moonlight, Kimi-K2): the forward pass.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/expert_host.h"
#include "worker/model/experts/expert_bank.h"
#include "worker/model/forward/batch.h"
#include "worker/model/forward/mla.h"
#include "worker/model/forward/mlp.h"
#include "worker/model/forward/moe.h"
#include "worker/model/forward/sampler.h"
#include "worker/model/loading/model_directory.h"
#include "worker/model/model.h"
#include "worker/model/weights.h"

namespace baleen::worker {

class DeepSeekModel final : public Model, public ExpertHost {
 public:
  // Reads the weights, and takes all memory that steps will need. Of the options, limits, shard and
  // progress count. `device` must outlive the model. Errors name the file, field or tensor;
  // kInvalidArgument: a shard that does not fit the config; kResourceExhausted: not enough memory.
  static absl::StatusOr<std::unique_ptr<DeepSeekModel>> Load(
      std::unique_ptr<ModelDirectory> directory, const ModelOptions& options, Device& device);

  // ModelDirectory::Open and Load.
  static absl::StatusOr<std::unique_ptr<DeepSeekModel>> Load(const ModelOptions& options,
                                                             Device& device);

  const ModelInfo& info() const override { return directory_->info(); }
  const ModelConfig& config() const { return config_; }

  // kInvalidArgument: a sequence breaks the limits, the context, the vocabulary or its block table.
  // kFailedPrecondition: a rank with part of the experts steps without its group.
  absl::Status Step(std::span<const SequenceStep> sequences, KvView kv, const GroupStep& group,
                    std::span<SampledToken> sampled) override;

  absl::Status Prepare(std::int32_t layer, LayerPlacement placement) override;
  void Adopt() override;
  const ExpertLoad& expert_load() const override { return expert_load_; }

 private:
  // Rows of a step that go through the layers together: a micro-batch.
  struct Part {
    Batch batch;
    std::int64_t first_row = 0;  // in the step's batch
  };

  DeepSeekModel(std::unique_ptr<ModelDirectory> directory, Device& device,
                const StepLimits& limits);

  absl::Status LoadAllWeights(const ModelOptions& options);
  absl::Status Allocate(Device& device);
  void Split(int parts);
  absl::Status RunLayers(const KvView& kv, AllToAll* all_to_all);
  absl::Status BeginLayer(std::size_t index, std::size_t part, const KvView& kv,
                          AllToAll* all_to_all);
  absl::Status EndLayer(std::size_t index, std::size_t part, AllToAll* all_to_all);
  void Attend(const LayerWeights& layer, const Part& part, const LayerKv& kv);
  Moe::Layer MoeLayer(std::size_t index) const;
  Moe::Lane MoeLane(std::size_t part, AllToAll* all_to_all) const;

  const std::unique_ptr<ModelDirectory> directory_;  // open: placements that change read from it
  const kernels::OpTable& ops_;
  const ModelConfig& config_;
  const StepLimits limits_;
  TensorSource source_;
  ModelWeights weights_;
  std::unique_ptr<ExpertBank> experts_;  // none when all layers are dense
  ExpertLoad expert_load_;

  Batch batch_;
  std::vector<Part> parts_;
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
