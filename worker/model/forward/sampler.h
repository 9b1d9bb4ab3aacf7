// From the last hidden state of each sequence to its next token.
#pragma once

#include <cstdint>
#include <span>

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

  // hidden: [batch rows][hidden]. Fills sampled[i] for each sequence i that asks for a token.
  // Logits are computed for those only.
  void Run(const ModelWeights& weights, const Batch& batch, const float* hidden,
           std::span<SampledToken> sampled);

 private:
  SampledToken SampleRow(const BatchSequence& sequence, const float* logits);

  const kernels::OpTable* ops_ = nullptr;
  std::int64_t vocabulary_ = 0;
  std::int64_t hidden_ = 0;
  float epsilon_ = 0.0f;
  Array<std::uint16_t> normed_;  // bf16 [sequences][hidden]
  Array<float> logits_;          // [sequences][vocabulary]
  Array<std::int32_t> scratch_ids_;
  Array<std::uint64_t> scratch_weights_;
};

}  // namespace baleen::worker
