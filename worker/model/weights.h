// The weights of a model, bound by name, dtype and shape to plain structs, one per layer, and
// packed for a device.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/include/weight.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/tensor_binder.h"

namespace baleen::worker {

using kernels::PackedWeight;

// Shapes are [N, K], as in the checkpoint: y[N] = W x[K].
struct MlpWeights {
  PackedWeight gate;  // [intermediate, hidden]
  PackedWeight up;    // [intermediate, hidden]
  PackedWeight down;  // [hidden, intermediate]
};

struct AttentionWeights {
  // q_lora_rank > 0: q_a, q_a_norm, q_b; else only q.
  PackedWeight q_a;                  // [q_lora, hidden]
  const float* q_a_norm = nullptr;   // [q_lora]
  PackedWeight q_b;                  // [heads * qk_head_dim, q_lora]
  PackedWeight q;                    // [heads * qk_head_dim, hidden]
  PackedWeight kv_a;                 // [kv_lora + rope, hidden]
  const float* kv_a_norm = nullptr;  // [kv_lora]
  // kv_b, [heads * (nope + v), kv_lora], three times: whole for the prefill form; and by head, for
  // the absorbed form, its key half transposed
  // ([kv_lora, nope]) and its value half ([v, kv_lora]).
  PackedWeight kv_b;
  std::vector<PackedWeight> key_absorb;
  std::vector<PackedWeight> value_up;
  PackedWeight output;  // [hidden, heads * v]
};

// Without the routed experts: those are in the ExpertBank.
struct MoeWeights {
  PackedWeight gate;                       // fp32 [experts, hidden]
  const float* correction_bias = nullptr;  // [experts]; null where the family has none
  std::optional<MlpWeights> shared;        // all shared experts as one MLP
};

struct LayerWeights {
  const float* input_norm = nullptr;  // [hidden]
  AttentionWeights attention;
  const float* post_attention_norm = nullptr;  // [hidden]
  // Exactly one of the two.
  std::optional<MlpWeights> dense;
  std::optional<MoeWeights> moe;
};

struct ModelWeights {
  kernels::WeightFormat embedding_format = kernels::WeightFormat::kBf16;
  const void* embedding = nullptr;  // bf16 or fp32 [vocabulary, hidden]
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [hidden]
  PackedWeight lm_head;               // [vocabulary, hidden]
  std::vector<Buffer> storage;        // everything above points into these
};

// Checks the whole checkpoint by its headers, those of all experts and of the
// multi-token-prediction layers among them: a tensor that is missing, has another dtype or shape
// than the config asks for, or no place in the model, is an error that names it. Reads no data.
absl::Status CheckWeights(const ModelConfig& config, const TensorSource& source);

// Reads and packs all weights that a forward pass uses but those of routed experts.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const TensorSource& source);

// What LoadWeights will read.
absl::StatusOr<std::uint64_t> LoadedBytes(const ModelConfig& config, const TensorSource& source);

// Expert `expert` of the decoder layer `layer`.
absl::StatusOr<MlpWeights> BindExpert(const ModelConfig& config, TensorBinder& binder,
                                      std::uint32_t layer, std::uint32_t expert);

}  // namespace baleen::worker
