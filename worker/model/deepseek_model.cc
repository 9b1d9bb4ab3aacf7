// DeepSeek-V2 and -V3: the forward pass.
#include "worker/model/deepseek_model.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
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
  std::unique_ptr<DeepSeekModel> model(
      new DeepSeekModel(std::move(directory), device, options.limits));
  BALEEN_RETURN_IF_ERROR(model->LoadAllWeights(options));
  BALEEN_RETURN_IF_ERROR(model->Allocate(device));
  return model;
}

DeepSeekModel::DeepSeekModel(std::unique_ptr<ModelDirectory> directory, Device& device,
                             const StepLimits& limits)
    : directory_(std::move(directory)),
      ops_(device.ops()),
      config_(directory_->config()),
      limits_(limits),
      source_{.checkpoint = directory_->checkpoint(),
              .device = device,
              .fp8_weights = config_.fp8_weights},
      expert_load_(MoeLayersOf(config_), static_cast<std::int32_t>(config_.n_routed_experts)) {}

absl::Status DeepSeekModel::LoadAllWeights(const ModelOptions& options) {
  BALEEN_RETURN_IF_ERROR(CheckWeights(config_, source_));
  BALEEN_ASSIGN_OR_RETURN(std::uint64_t total, LoadedBytes(config_, source_));
  std::optional<ExpertShard> shard = options.shard;
  if (!shard.has_value() && MoeLayersOf(config_) > 0) {
    shard = {.placement = ContiguousModelPlacement(config_, PlacementShapeOf(config_, 1))};
  }
  if (shard.has_value()) {
    BALEEN_RETURN_IF_ERROR(CheckExpertShard(config_, *shard));
    BALEEN_ASSIGN_OR_RETURN(const std::uint64_t experts,
                            ExpertBank::LoadedBytes(config_, source_, *shard));
    total += experts;
  }
  std::uint64_t done = 0;
  if (options.progress) {
    source_.on_read = [&](std::uint64_t bytes) { options.progress(done += bytes, total); };
  }
  const auto forget_progress = absl::MakeCleanup([this] { source_.on_read = nullptr; });
  BALEEN_ASSIGN_OR_RETURN(weights_, LoadWeights(config_, source_));
  if (shard.has_value()) {
    BALEEN_ASSIGN_OR_RETURN(experts_, ExpertBank::Load(config_, source_, *std::move(shard)));
  }
  return absl::OkStatus();
}

absl::Status DeepSeekModel::Allocate(Device& device) {
  const std::int64_t rows = limits_.tokens_max;
  const std::size_t values = std::size_t{limits_.tokens_max} * config_.hidden_size;
  BALEEN_ASSIGN_OR_RETURN(mla_, Mla::Make(config_, device, rows));
  BALEEN_ASSIGN_OR_RETURN(mlp_, Mlp::Make(device, rows, LargestIntermediate(config_)));
  if (experts_ != nullptr) {
    const PlacementShape& shape = experts_->shape();
    BALEEN_ASSIGN_OR_RETURN(moe_, Moe::Make(config_, device,
                                            {.rows_max = rows,
                                             .ranks = shape.ranks,
                                             .slots_per_rank = shape.slots_per_rank(),
                                             .dispatch = directory_->dispatch()}));
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
  if (group.micro_batches < 1 || group.micro_batches > kLanes) {
    return absl::InvalidArgumentError(
        fmt::format("a step of {} micro-batches, not 1 to {}", group.micro_batches, kLanes));
  }
  if (group.all_to_all == nullptr && experts_ != nullptr && experts_->shape().ranks > 1) {
    return absl::FailedPreconditionError(
        fmt::format("a step without the group: this rank holds a share of the experts, one of {}",
                    experts_->shape().ranks));
  }
  BALEEN_RETURN_IF_ERROR(batch_.Assign(config_, limits_, sequences, kv));
  const kernels::FloatEnvironment environment;
  ops_.embed({.rows = batch_.rows(),
              .columns = config_.hidden_size,
              .ids = batch_.tokens.data(),
              .format = weights_.embedding_format,
              .table = weights_.embedding,
              .y = hidden_.data()});
  Split(group.micro_batches);
  BALEEN_RETURN_IF_ERROR(RunLayers(kv, group.all_to_all));
  sampler_.Run(weights_, batch_, hidden_.data(), sampled);
  return absl::OkStatus();
}

// Into as many rows each, whatever they are of: the rows of a part that comes first have written
// their KV when the next part attends to it, as chunks of a prompt do.
void DeepSeekModel::Split(int parts) {
  parts_.resize(static_cast<std::size_t>(parts));
  std::int64_t begin = 0;
  for (int part = 0; part < parts; ++part) {
    const std::int64_t end = batch_.rows() * (part + 1) / parts;
    parts_[part].first_row = begin;
    parts_[part].batch.AssignPart(batch_, begin, end);
    begin = end;
  }
}

// While the rows of one part are at their experts, the other part computes.
absl::Status DeepSeekModel::RunLayers(const KvView& kv, AllToAll* all_to_all) {
  const std::size_t layers = weights_.layers.size();
  for (std::size_t index = 0; index < layers; ++index) {
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      if (index > 0) BALEEN_RETURN_IF_ERROR(EndLayer(index - 1, part, all_to_all));
      BALEEN_RETURN_IF_ERROR(BeginLayer(index, part, kv, all_to_all));
    }
    if (weights_.layers[index].dense.has_value()) continue;
    for (std::size_t part = 0; part < parts_.size(); ++part) {
      BALEEN_RETURN_IF_ERROR(moe_->Compute(MoeLayer(index), MoeLane(part, all_to_all)));
    }
  }
  for (std::size_t part = 0; part < parts_.size(); ++part) {
    BALEEN_RETURN_IF_ERROR(EndLayer(layers - 1, part, all_to_all));
  }
  return absl::OkStatus();
}

// Attention, and what can be done before other ranks are waited for. What the layer's MLP adds
// is in delta_ after EndLayer.
absl::Status DeepSeekModel::BeginLayer(std::size_t index, std::size_t part, const KvView& kv,
                                       AllToAll* all_to_all) {
  const LayerWeights& layer = weights_.layers[index];
  const std::int64_t first = parts_[part].first_row * config_.hidden_size;
  if (parts_[part].batch.rows() > 0) Attend(layer, parts_[part], {kv, index});
  if (!layer.dense.has_value()) {
    return moe_->Start(MoeLayer(index), MoeLane(part, all_to_all), expert_load_);
  }
  mlp_.Run(*layer.dense, {.count = parts_[part].batch.rows(),
                          .x = normed_bf16_.data() + first,
                          .y = delta_.data() + first});
  return absl::OkStatus();
}

absl::Status DeepSeekModel::EndLayer(std::size_t index, std::size_t part, AllToAll* all_to_all) {
  if (!weights_.layers[index].dense.has_value()) {
    BALEEN_RETURN_IF_ERROR(moe_->Finish(MoeLayer(index), MoeLane(part, all_to_all)));
  }
  const std::int64_t first = parts_[part].first_row * config_.hidden_size;
  ops_.add({.count = parts_[part].batch.rows() * config_.hidden_size,
            .x = delta_.data() + first,
            .y = hidden_.data() + first});
  return absl::OkStatus();
}

// Leaves the normed input of the layer's MLP in normed_ and normed_bf16_.
void DeepSeekModel::Attend(const LayerWeights& layer, const Part& part, const LayerKv& kv) {
  const std::int64_t rows = part.batch.rows();
  const std::int64_t columns = config_.hidden_size;
  const std::int64_t first = part.first_row * columns;
  float* const hidden = hidden_.data() + first;
  std::uint16_t* const normed_bf16 = normed_bf16_.data() + first;
  kernels::RmsNormParams norm{.rows = rows,
                              .columns = columns,
                              .x = hidden,
                              .x_stride = columns,
                              .weight = layer.input_norm,
                              .epsilon = config_.rms_norm_eps,
                              .y_bf16 = normed_bf16,
                              .y_bf16_stride = columns};
  ops_.rms_norm(norm);
  mla_.Run(layer.attention, part.batch, kv, normed_bf16, delta_.data() + first);
  ops_.add({.count = rows * columns, .x = delta_.data() + first, .y = hidden});

  norm.weight = layer.post_attention_norm;
  norm.y = normed_.data() + first;
  ops_.rms_norm(norm);
}

Moe::Layer DeepSeekModel::MoeLayer(std::size_t index) const {
  return {.index = static_cast<std::int32_t>(index - config_.first_k_dense_replace),
          .weights = *weights_.layers[index].moe,
          .experts = *experts_,
          .mlp = mlp_};
}

Moe::Lane DeepSeekModel::MoeLane(std::size_t part, AllToAll* all_to_all) const {
  const Batch& batch = parts_[part].batch;
  const std::int64_t first = parts_[part].first_row * config_.hidden_size;
  return {.number = static_cast<int>(part),
          .all_to_all = all_to_all,
          .first_row = parts_[part].first_row,
          .count = batch.rows(),
          .x = normed_.data() + first,
          .x_bf16 = normed_bf16_.data() + first,
          .requests = batch.requests.data(),
          .positions = batch.positions.data(),
          .y = delta_.data() + first};
}

absl::Status DeepSeekModel::Prepare(std::int32_t layer, LayerPlacement placement) {
  if (experts_ == nullptr) {
    return absl::InvalidArgumentError("placement of experts: the model has none");
  }
  return experts_->Prepare(layer, std::move(placement));
}

void DeepSeekModel::Adopt() { experts_->Adopt(); }

}  // namespace baleen::worker
