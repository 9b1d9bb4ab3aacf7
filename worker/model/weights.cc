// The weights of a model, bound by name, dtype and shape.
#include "worker/model/weights.h"

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

absl::StatusOr<MlpWeights> BindMlp(TensorBinder& binder, const std::string& prefix,
                                   std::uint64_t hidden, std::uint64_t intermediate) {
  MlpWeights mlp;
  BALEEN_ASSIGN_OR_RETURN(mlp.gate,
                          binder.Linear(prefix + "gate_proj.weight", intermediate, hidden));
  BALEEN_ASSIGN_OR_RETURN(mlp.up, binder.Linear(prefix + "up_proj.weight", intermediate, hidden));
  BALEEN_ASSIGN_OR_RETURN(mlp.down,
                          binder.Linear(prefix + "down_proj.weight", hidden, intermediate));
  return mlp;
}

// kv_b whole, and head by head for the absorbed form.
absl::Status BindExpansion(const ModelConfig& config, TensorBinder& binder,
                           const std::string& prefix, AttentionWeights& attention) {
  const std::int64_t nope = config.qk_nope_head_dim;
  const std::int64_t value = config.v_head_dim;
  const std::uint64_t heads = config.num_attention_heads;
  BALEEN_ASSIGN_OR_RETURN(
      const kernels::WeightSource whole,
      binder.Source(prefix + "kv_b_proj.weight", heads * (nope + value), config.kv_lora_rank));
  BALEEN_ASSIGN_OR_RETURN(attention.kv_b, binder.Pack(whole));
  for (std::uint64_t head = 0; head < heads; ++head) {
    kernels::WeightSource part = whole;
    part.row_begin = static_cast<std::int64_t>(head) * (nope + value);
    part.row_count = nope;
    part.transposed = true;
    BALEEN_ASSIGN_OR_RETURN(PackedWeight key_absorb, binder.Pack(part));
    attention.key_absorb.push_back(key_absorb);
    part.row_begin += nope;
    part.row_count = value;
    part.transposed = false;
    BALEEN_ASSIGN_OR_RETURN(PackedWeight value_up, binder.Pack(part));
    attention.value_up.push_back(value_up);
  }
  return absl::OkStatus();
}

absl::StatusOr<AttentionWeights> BindAttention(const ModelConfig& config, TensorBinder& binder,
                                               const std::string& prefix) {
  const std::uint64_t hidden = config.hidden_size;
  const std::uint64_t heads = config.num_attention_heads;
  const std::uint64_t queries = heads * config.qk_head_dim();
  AttentionWeights attention;
  if (config.q_lora_rank > 0) {
    BALEEN_ASSIGN_OR_RETURN(attention.q_a,
                            binder.Linear(prefix + "q_a_proj.weight", config.q_lora_rank, hidden));
    BALEEN_ASSIGN_OR_RETURN(attention.q_a_norm,
                            binder.Vector(prefix + "q_a_layernorm.weight", config.q_lora_rank));
    BALEEN_ASSIGN_OR_RETURN(attention.q_b,
                            binder.Linear(prefix + "q_b_proj.weight", queries, config.q_lora_rank));
  } else {
    BALEEN_ASSIGN_OR_RETURN(attention.q, binder.Linear(prefix + "q_proj.weight", queries, hidden));
  }
  BALEEN_ASSIGN_OR_RETURN(
      attention.kv_a, binder.Linear(prefix + "kv_a_proj_with_mqa.weight", config.kv_row(), hidden));
  BALEEN_ASSIGN_OR_RETURN(attention.kv_a_norm,
                          binder.Vector(prefix + "kv_a_layernorm.weight", config.kv_lora_rank));
  BALEEN_RETURN_IF_ERROR(BindExpansion(config, binder, prefix, attention));
  BALEEN_ASSIGN_OR_RETURN(
      attention.output, binder.Linear(prefix + "o_proj.weight", hidden, heads * config.v_head_dim));
  return attention;
}

absl::StatusOr<MoeWeights> BindMoe(const ModelConfig& config, TensorBinder& binder,
                                   const std::string& prefix) {
  const std::uint64_t hidden = config.hidden_size;
  MoeWeights moe;
  BALEEN_ASSIGN_OR_RETURN(moe.gate,
                          binder.Gate(prefix + "gate.weight", config.n_routed_experts, hidden));
  if (config.topk_method == TopkMethod::kNoauxTc) {
    BALEEN_ASSIGN_OR_RETURN(
        moe.correction_bias,
        binder.Vector(prefix + "gate.e_score_correction_bias", config.n_routed_experts));
  }
  if (config.n_shared_experts > 0) {
    BALEEN_ASSIGN_OR_RETURN(
        moe.shared, BindMlp(binder, prefix + "shared_experts.", hidden,
                            std::uint64_t{config.n_shared_experts} * config.moe_intermediate_size));
  }
  return moe;
}

absl::StatusOr<LayerWeights> BindLayer(const ModelConfig& config, TensorBinder& binder,
                                       std::uint32_t index, bool dense) {
  const std::string prefix = fmt::format("model.layers.{}.", index);
  LayerWeights layer;
  BALEEN_ASSIGN_OR_RETURN(layer.input_norm,
                          binder.Vector(prefix + "input_layernorm.weight", config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(layer.attention, BindAttention(config, binder, prefix + "self_attn."));
  BALEEN_ASSIGN_OR_RETURN(
      layer.post_attention_norm,
      binder.Vector(prefix + "post_attention_layernorm.weight", config.hidden_size));
  if (dense) {
    BALEEN_ASSIGN_OR_RETURN(layer.dense, BindMlp(binder, prefix + "mlp.", config.hidden_size,
                                                 config.intermediate_size));
  } else {
    BALEEN_ASSIGN_OR_RETURN(layer.moe, BindMoe(config, binder, prefix + "mlp."));
  }
  return layer;
}

// Of binders that only check.
absl::Status CheckExperts(const ModelConfig& config, TensorBinder& binder, std::uint32_t layer) {
  for (std::uint32_t expert = 0; expert < config.n_routed_experts; ++expert) {
    BALEEN_RETURN_IF_ERROR(BindExpert(config, binder, layer, expert).status());
  }
  return absl::OkStatus();
}

// Multi-token-prediction layers are not run yet, but a checkpoint that announces them must hold
// what their config says.
absl::Status CheckPredictionLayers(const ModelConfig& config, const TensorSource& source) {
  const Checkpoint& checkpoint = source.checkpoint;
  std::vector<Buffer> unused;
  TensorBinder binder(source, unused, TensorBinder::Mode::kCheck);
  for (std::uint32_t i = 0; i < config.num_nextn_predict_layers; ++i) {
    const std::uint32_t index = config.num_hidden_layers + i;
    const std::string prefix = fmt::format("model.layers.{}.", index);
    if (!checkpoint.Has(prefix + "eh_proj.weight")) {
      continue;
    }
    const std::uint64_t hidden = config.hidden_size;
    BALEEN_RETURN_IF_ERROR(binder.Vector(prefix + "enorm.weight", hidden).status());
    BALEEN_RETURN_IF_ERROR(binder.Vector(prefix + "hnorm.weight", hidden).status());
    BALEEN_RETURN_IF_ERROR(binder.Linear(prefix + "eh_proj.weight", hidden, 2 * hidden).status());
    BALEEN_RETURN_IF_ERROR(binder.Vector(prefix + "shared_head.norm.weight", hidden).status());
    BALEEN_RETURN_IF_ERROR(BindLayer(config, binder, index, config.n_routed_experts == 0).status());
    BALEEN_RETURN_IF_ERROR(CheckExperts(config, binder, index));
  }
  return absl::OkStatus();
}

// The number after "model.layers."; nothing for any other name.
std::optional<std::uint32_t> LayerOf(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  std::uint32_t layer = 0;
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  name.remove_prefix(kPrefix.size());
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  return error == std::errc() ? std::optional(layer) : std::nullopt;
}

// A weight of a decoder layer that nothing asked for: config and weights are of different models,
// and to leave it out would be to compute something else without a word.
absl::Status CheckLeftovers(const ModelConfig& config, const Checkpoint& checkpoint,
                            const TensorBinder& binder) {
  for (const std::string& name : checkpoint.names()) {
    const std::optional<std::uint32_t> layer = LayerOf(name);
    if (!layer.has_value() || binder.used(name)) {
      continue;
    }
    if (*layer >= config.num_hidden_layers) {
      // Prediction layers have a check of their own.
      if (*layer < config.num_hidden_layers + config.num_nextn_predict_layers &&
          checkpoint.Has(fmt::format("model.layers.{}.eh_proj.weight", *layer))) {
        continue;
      }
      return absl::InvalidArgumentError(
          fmt::format("tensor {} is of layer {}, config.json has num_hidden_layers {}", name,
                      *layer, config.num_hidden_layers));
    }
    // Old checkpoints keep rope's frequencies; an MLP of no shared experts has weights of no bytes.
    const bool harmless = name.ends_with(".inv_freq") || checkpoint.Get(name)->data.empty();
    if (!harmless) {
      return absl::InvalidArgumentError(
          fmt::format("tensor {} has no place in the model that config.json describes", name));
    }
  }
  return absl::OkStatus();
}

// Everything but routed experts and prediction layers.
absl::StatusOr<ModelWeights> BindModel(const ModelConfig& config, TensorBinder& binder) {
  ModelWeights weights;
  BALEEN_ASSIGN_OR_RETURN(weights.embedding,
                          binder.Table("model.embed_tokens.weight", config.vocab_size,
                                       config.hidden_size, weights.embedding_format));
  for (std::uint32_t index = 0; index < config.num_hidden_layers; ++index) {
    BALEEN_ASSIGN_OR_RETURN(LayerWeights layer,
                            BindLayer(config, binder, index, config.is_dense(index)));
    weights.layers.push_back(std::move(layer));
  }
  BALEEN_ASSIGN_OR_RETURN(weights.final_norm,
                          binder.Vector("model.norm.weight", config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(
      weights.lm_head,
      binder.Linear(config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight",
                    config.vocab_size, config.hidden_size));
  return weights;
}

}  // namespace

absl::StatusOr<MlpWeights> BindExpert(const ModelConfig& config, TensorBinder& binder,
                                      std::uint32_t layer, std::uint32_t expert) {
  return BindMlp(binder, fmt::format("model.layers.{}.mlp.experts.{}.", layer, expert),
                 config.hidden_size, config.moe_intermediate_size);
}

absl::Status CheckWeights(const ModelConfig& config, const TensorSource& source) {
  std::vector<Buffer> unused;
  TensorBinder binder(source, unused, TensorBinder::Mode::kCheck);
  BALEEN_RETURN_IF_ERROR(BindModel(config, binder).status());
  for (std::uint32_t layer = config.first_k_dense_replace; layer < config.num_hidden_layers;
       ++layer) {
    BALEEN_RETURN_IF_ERROR(CheckExperts(config, binder, layer));
  }
  BALEEN_RETURN_IF_ERROR(CheckPredictionLayers(config, source));
  return CheckLeftovers(config, source.checkpoint, binder);
}

absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const TensorSource& source) {
  std::vector<Buffer> storage;
  TensorBinder binder(source, storage, TensorBinder::Mode::kLoad);
  BALEEN_ASSIGN_OR_RETURN(ModelWeights weights, BindModel(config, binder));
  weights.storage = std::move(storage);
  if (binder.rounded()) {
    log::Info("weights rounded to bf16");
  }
  return weights;
}

absl::StatusOr<std::uint64_t> LoadedBytes(const ModelConfig& config, const TensorSource& source) {
  std::vector<Buffer> unused;
  TensorBinder binder(source, unused, TensorBinder::Mode::kCheck);
  BALEEN_RETURN_IF_ERROR(BindModel(config, binder).status());
  return binder.bytes();
}

}  // namespace baleen::worker
