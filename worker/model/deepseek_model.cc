// DeepSeek-V2 and -V3: the forward pass.
#include "worker/model/deepseek_model.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"
#include "kernels/include/float_environment.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

std::int64_t LargestIntermediate(const ModelConfig& config) {
  const std::int64_t dense = config.first_k_dense_replace > 0 ? config.intermediate_size : 0;
  const std::int64_t shared_experts = std::max<std::int64_t>(config.n_shared_experts, 1);
  return std::max(dense, shared_experts * config.moe_intermediate_size);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeepSeekModel>> DeepSeekModel::Load(const ModelOptions& options,
                                                                   Device& device) {
  BALEEN_ASSIGN_OR_RETURN(std::unique_ptr<ModelDirectory> directory, ModelDirectory::Open(options));
  return Load(std::move(directory), options, device);
}

absl::StatusOr<std::unique_ptr<DeepSeekModel>> DeepSeekModel::Load(
    std::unique_ptr<ModelDirectory> directory, const ModelOptions& options, Device& device) {
  if (directory->dispatch() != DispatchFormat::kBf16 || options.shard.has_value()) {
    return absl::UnimplementedError("this build loads whole models with bf16 dispatch only");
  }
  std::unique_ptr<DeepSeekModel> model(
      new DeepSeekModel(device, directory->config(), options.limits));
  BALEEN_ASSIGN_OR_RETURN(model->weights_,
                          LoadWeights(model->config_, directory->checkpoint(), device));
  BALEEN_RETURN_IF_ERROR(model->Allocate(device));
  model->info_ = directory->info();
  return model;
}

absl::Status DeepSeekModel::Allocate(Device& device) {
  const std::int64_t rows = limits_.tokens_max;
  const std::size_t values = std::size_t{limits_.tokens_max} * config_.hidden_size;
  BALEEN_ASSIGN_OR_RETURN(mla_, Mla::Make(config_, device, rows));
  BALEEN_ASSIGN_OR_RETURN(mlp_, Mlp::Make(device, rows, LargestIntermediate(config_)));
  if (config_.first_k_dense_replace < config_.num_hidden_layers) {
    BALEEN_ASSIGN_OR_RETURN(moe_, Moe::Make(config_, device, rows));
  }
  BALEEN_ASSIGN_OR_RETURN(sampler_, Sampler::Make(config_, device, limits_.sequences_max));
  BALEEN_ASSIGN_OR_RETURN(hidden_, Array<float>::Make(device, values));
  BALEEN_ASSIGN_OR_RETURN(normed_, Array<float>::Make(device, values));
  BALEEN_ASSIGN_OR_RETURN(normed_bf16_, Array<std::uint16_t>::Make(device, values));
  BALEEN_ASSIGN_OR_RETURN(delta_, Array<float>::Make(device, values));
  return absl::OkStatus();
}

absl::Status DeepSeekModel::Step(std::span<const SequenceStep> sequences, KvView kv,
                                 const GroupStep& group, std::span<SampledToken> sampled) {
  if (sampled.size() != sequences.size()) {
    return absl::InvalidArgumentError(fmt::format("a step of {} sequences with room for {} tokens",
                                                  sequences.size(), sampled.size()));
  }
  BALEEN_RETURN_IF_ERROR(batch_.Assign(config_, limits_, sequences, kv));
  const kernels::FloatEnvironment environment;
  ops_.embed({.rows = batch_.rows(),
              .columns = config_.hidden_size,
              .ids = batch_.tokens.data(),
              .format = weights_.embedding_format,
              .table = weights_.embedding,
              .y = hidden_.data()});
  for (std::size_t index = 0; index < weights_.layers.size(); ++index) {
    RunLayer(index, kv);
  }
  sampler_.Run(weights_, batch_, hidden_.data(), sampled);
  return absl::OkStatus();
}

void DeepSeekModel::RunLayer(std::size_t index, const KvView& kv) {
  const LayerWeights& layer = weights_.layers[index];
  const std::int64_t rows = batch_.rows();
  const std::int64_t columns = config_.hidden_size;
  kernels::RmsNormParams norm{.rows = rows,
                              .columns = columns,
                              .x = hidden_.data(),
                              .x_stride = columns,
                              .weight = layer.input_norm,
                              .epsilon = config_.rms_norm_eps,
                              .y_bf16 = normed_bf16_.data(),
                              .y_bf16_stride = columns};
  ops_.rms_norm(norm);
  mla_.Run(layer.attention, batch_, {kv, index}, normed_bf16_.data(), delta_.data());
  ops_.add({.count = rows * columns, .x = delta_.data(), .y = hidden_.data()});

  norm.weight = layer.post_attention_norm;
  norm.y = normed_.data();
  ops_.rms_norm(norm);
  if (layer.dense.has_value()) {
    mlp_.Run(*layer.dense, {.count = rows, .x = normed_bf16_.data(), .y = delta_.data()});
  } else {
    moe_->Run(
        *layer.moe, mlp_,
        {.count = rows, .x = normed_.data(), .x_bf16 = normed_bf16_.data(), .y = delta_.data()});
  }
  ops_.add({.count = rows * columns, .x = delta_.data(), .y = hidden_.data()});
}

}  // namespace baleen::worker
