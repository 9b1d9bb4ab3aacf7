// Multi-head latent attention: queries, the latent KV cache, and the two forms of attention over
// it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/forward/batch.h"
#include "worker/model/forward/rope_table.h"
#include "worker/model/weights.h"

namespace baleen::worker {

class Mla {
 public:
  static absl::StatusOr<Mla> Make(const ModelConfig& config, Device& device, std::int64_t rows_max);

  // x: the normed input, bf16 [rows][hidden]; y: [rows][hidden]. Writes the batch's KV.
  void Run(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv,
           const std::uint16_t* x, float* y);

 private:
  void MakeQueries(const AttentionWeights& weights, std::int64_t rows, const std::uint16_t* x);
  void WriteKv(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv,
               const std::uint16_t* x);
  void AttendAbsorbed(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv);
  void AttendPrefill(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv);
  void AttendPrefillSequence(const AttentionWeights& weights, const BatchSequence& sequence,
                             const kernels::PagedKv& kv);
  // Rotates `rows` x `heads` rows of rope values, from row `row` of the batch.
  void Rotate(const Batch& batch, std::int64_t row, kernels::RopeParams params) const;

  const kernels::OpTable* ops_ = nullptr;
  std::int64_t heads_ = 0;
  std::int64_t nope_dim_ = 0;
  std::int64_t rope_dim_ = 0;
  std::int64_t value_dim_ = 0;
  std::int64_t latent_dim_ = 0;
  bool rope_interleave_ = true;
  float score_scale_ = 0.0f;  // softmax scale times log2(e)
  KvLayout kv_layout_;
  RopeTable rope_table_;

  Array<float> query_latent_;            // [rows][q_lora]
  Array<std::uint16_t> query_normed_;    // bf16 [rows][q_lora]
  Array<float> queries_;                 // [rows][heads][nope + rope]
  Array<float> kv_new_;                  // [rows][latent + rope]
  Array<std::uint16_t> kv_rows_;         // bf16 [rows][latent + rope]: what goes into the cache
  Array<std::uint16_t> prefill_query_;   // bf16 [rows][heads][nope + rope]
  Array<std::uint16_t> nope_query_;      // bf16 [rows][heads][nope]
  Array<std::uint16_t> latent_query_;    // bf16 [rows][heads][latent + rope]
  Array<std::uint16_t> latent_output_;   // bf16 [rows][heads][latent]
  Array<std::uint16_t> attended_;        // bf16 [rows][heads][value]
  Array<std::uint16_t> split_kv_;        // bf16 [512][latent + rope]
  Array<std::uint16_t> split_expanded_;  // bf16 [512][heads][nope + value]
  Array<float> state_max_;               // [rows][heads]
  Array<float> state_sum_;               // [rows][heads]
  Array<float> state_values_;            // [rows][heads][value]
  Array<float> scratch_;                 // of the attention ops
};

}  // namespace baleen::worker
