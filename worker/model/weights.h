// The weights of a model, bound by name, dtype and shape to plain structs, one per layer, and
// packed for a device.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/include/weight.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"
#include "worker/model/config.h"

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

struct MoeWeights {
  PackedWeight gate;                       // fp32 [experts, hidden]
  const float* correction_bias = nullptr;  // [experts]; null where the family has none
  std::vector<MlpWeights> experts;
  std::optional<MlpWeights> shared;  // all shared experts as one MLP
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

// Reads and packs all weights that a forward pass uses, and checks those of the
// multi-token-prediction layers if there are any. A tensor that is missing, or has another dtype or
// shape than the config asks for, is an error that names it.
absl::StatusOr<ModelWeights> LoadWeights(const ModelConfig& config, const Checkpoint& checkpoint,
                                         Device& device);

}  // namespace baleen::worker
