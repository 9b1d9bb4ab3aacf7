// From the last hidden states of each sequence to its next token, and to log-probabilities.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/forward/batch.h"
#include "worker/model/model.h"
#include "worker/model/weights.h"

namespace baleen::worker {

class Sampler {
 public:
  static absl::StatusOr<Sampler> Make(const ModelConfig& config, Device& device,
                                      std::int64_t sequences_max);

  // hidden: [batch rows][hidden]. Fills sampled[i] for each sequence i that asks for a token or for
  // followers. Logits are computed for those rows only, and some rows at a time.
  void Run(const ModelWeights& weights, const Batch& batch, const float* hidden,
           std::span<SampledToken> sampled);

 private:
  // A row of hidden states.
  struct Row {
    const BatchSequence* sequence = nullptr;
    std::int64_t offset = 0;  // within the sequence's rows
  };

  template <typename Use>
  void ForEachLogits(const ModelWeights& weights, const float* hidden, std::span<const Row> rows,
                     Use use);
  void Score(const Row& row, const float* logits, SampledToken& sampled);
  void Choose(const BatchSequence& sequence, float* logits, SampledToken& sampled);
  absl::StatusOr<const float*> Adjust(const SequenceStep& step, float* logits);
  TokenLogprobs LogprobsOf(const float* logits, std::int32_t token, std::int64_t top);
  absl::Status CheckFinite(const float* logits, std::int64_t position) const;

  const kernels::OpTable* ops_ = nullptr;
  std::int64_t vocabulary_ = 0;
  std::int64_t hidden_ = 0;
  std::int64_t rows_max_ = 0;  // whose logits are there at a time
  float epsilon_ = 0.0f;
  Array<std::uint16_t> normed_;  // bf16 [rows_max][hidden]
  Array<float> logits_;          // [rows_max][vocabulary]
  Array<float> adjusted_;        // [vocabulary]
  Array<std::int32_t> scratch_ids_;
  Array<std::uint64_t> scratch_weights_;
  std::vector<Row> scored_;  // reused
  std::vector<Row> chosen_;  // reused
};

}  // namespace baleen::worker
