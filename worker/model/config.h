// config.json of a checkpoint: the DeepSeek-V2 and -V3 families, validated field by field.
//
// Field names are those of Hugging Face. Both layouts are read: transformers 4 (`rope_theta`,
// `rope_scaling`, `torch_dtype`) and transformers 5 (`rope_parameters`, `dtype`). A missing field
// takes the default that transformers gives it in that family. What would change the answer and is
// not implemented is refused, never ignored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::worker {

enum class ModelFamily : std::uint8_t { kDeepseekV2, kDeepseekV3 };

// How the gate turns its logits into scores, both in fp32: sigmoid of each (V3), or softmax over
// all experts (V2).
enum class ScoringFunction : std::uint8_t { kSigmoid, kSoftmax };

// How the gate chooses num_experts_per_tok experts of a token.
//   kNoauxTc (V3): choice scores = scores + e_score_correction_bias. The score of a group is the
//   sum of its two best choice scores; the
//     topk_group best groups stay, the others count as -inf; the best choice scores win. The
//     weights are the *scores* (without the bias) of the winners; with norm_topk_prob each is
//     divided by (their sum + 1e-20); then all are multiplied by routed_scaling_factor.
//   kGreedy (V2): the best scores win, no groups. Weights: the scores times routed_scaling_factor,
//   never normalised. kGroupLimitedGreedy (V2): as kGreedy within the topk_group groups of the
//   highest single score.
// Ties go to the lower id (transformers leaves them open).
enum class TopkMethod : std::uint8_t { kNoauxTc, kGreedy, kGroupLimitedGreedy };

// Epsilon of q_a_layernorm and kv_a_layernorm. Not rms_norm_eps: transformers and DeepSeek's own
// code build these two with the class's default.
inline constexpr float kLatentNormEpsilon = 1e-6f;

// Rows and columns of weight that share one FP8 scale.
inline constexpr std::uint32_t kScaleBlock = 128;

struct ModelConfig {
  ModelFamily family = ModelFamily::kDeepseekV3;

  std::uint32_t vocab_size = 0;               // [1, 2^20]
  std::uint32_t hidden_size = 0;              // [1, 65536]
  std::uint32_t intermediate_size = 0;        // of the dense layers' MLP
  std::uint32_t num_hidden_layers = 0;        // [1, 512], without MTP layers
  std::uint32_t num_attention_heads = 0;      // [1, 1024]; num_key_value_heads must equal it (MLA)
  std::uint32_t max_position_embeddings = 0;  // the context, in tokens
  float rms_norm_eps = 0.0f;  // of the layer norms and the final norm, see kLatentNormEpsilon
  bool tie_word_embeddings = false;  // lm_head.weight is model.embed_tokens.weight
  // Multi-token-prediction layers announced at model.layers.{num_hidden_layers + i}. transformers
  // writes 1 even when the file has none: ask the checkpoint for their tensors.
  std::uint32_t num_nextn_predict_layers = 0;

  // MLA. Latent: q_lora_rank and kv_lora_rank; per head: nope and rope parts of query and key, and
  // the value.
  std::uint32_t q_lora_rank = 0;  // 0 = none: q_proj instead of q_a_proj, q_a_layernorm, q_b_proj
  std::uint32_t kv_lora_rank = 0;
  std::uint32_t qk_nope_head_dim = 0;
  std::uint32_t qk_rope_head_dim = 0;  // even
  std::uint32_t v_head_dim = 0;
  // Which rope dimensions form a rotated pair: (2i, 2i + 1) when true (V2 always), (i, i +
  // qk_rope_head_dim / 2) when false.
  bool rope_interleave = true;

  // Mixture of experts: layers [first_k_dense_replace, num_hidden_layers).
  std::uint32_t first_k_dense_replace =
      0;  // clamped to num_hidden_layers: then all layers are dense
  std::uint32_t moe_intermediate_size = 0;
  std::uint32_t n_routed_experts = 0;
  std::uint32_t n_shared_experts =
      0;  // 0 = none; one MLP of n_shared_experts * moe_intermediate_size
  std::uint32_t num_experts_per_tok = 0;  // at most n_routed_experts / n_group * topk_group
  std::uint32_t n_group = 1;              // divides n_routed_experts; 1 with kGreedy
  std::uint32_t topk_group = 1;           // [1, n_group]
  ScoringFunction scoring_func = ScoringFunction::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  bool norm_topk_prob = false;  // always false in V2, where transformers ignores it
  float routed_scaling_factor = 1.0f;

  // Weights are FP8 e4m3 with one scale per kScaleBlock x kScaleBlock block (`NAME_scale_inv`,
  // [ceil(rows / 128), ceil(columns / 128)]). Tensors that the checkpoint keeps in bf16 or fp32
  // (embedding, norms, gate, lm_head) have no scale.
  bool fp8_weights = false;

  // Tokens that end a reply, ascending, without duplicates; from generation_config.json, else from
  // config.json.
  std::vector<std::int32_t> eos_token_ids;

  // Derived. Angle of pair i at position p: p * rope_inverse_frequencies[i] (qk_rope_head_dim / 2
  // of them, YaRN applied; computed in double, rounded once). Cosine and sine are multiplied by
  // rope_attention_factor, for queries and keys both.
  std::vector<float> rope_inverse_frequencies;
  float rope_attention_factor = 1.0f;
  // Factor of the attention logits: qk_head_dim^-1/2, times YaRN's mscale(factor,
  // mscale_all_dim)^2.
  float softmax_scale = 0.0f;

  std::uint32_t qk_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
  // Values of one token's KV in one layer.
  std::uint32_t kv_row() const { return kv_lora_rank + qk_rope_head_dim; }
  bool is_dense(std::uint32_t layer) const { return layer < first_k_dense_replace; }
  std::uint32_t experts_per_group() const { return n_routed_experts / n_group; }
};

// Limits of the JSON files, checked before they are parsed.
inline constexpr std::size_t kConfigBytesMax = 1u << 20;
inline constexpr int kConfigDepthMax = 32;

// Parses the text of a config.json. Any error is kInvalidArgument and names the field, its value
// and the limit.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json);

// The same, with the eos tokens of a generation_config.json where it has any.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                             std::string_view generation_json);

// Reads DIRECTORY/config.json and, when there is one, DIRECTORY/generation_config.json. kNotFound:
// no directory or no config.json.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory);

}  // namespace baleen::worker
