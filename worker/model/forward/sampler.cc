// From the last hidden state of each sequence to its next token.
#include "worker/model/forward/sampler.h"

#include <algorithm>
#include <array>

#include "fmt/format.h"
#include "kernels/include/philox.h"
#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker {

absl::StatusOr<Sampler> Sampler::Make(const ModelConfig& config, Device& device,
                                      std::int64_t sequences_max) {
  const auto rows = static_cast<std::size_t>(sequences_max);
  Sampler sampler;
  sampler.ops_ = &device.ops();
  sampler.vocabulary_ = config.vocab_size;
  sampler.hidden_ = config.hidden_size;
  sampler.epsilon_ = config.rms_norm_eps;
  BALEEN_ASSIGN_OR_RETURN(sampler.normed_,
                          Array<std::uint16_t>::Make(device, rows * config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.logits_, Array<float>::Make(device, rows * config.vocab_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.scratch_ids_,
                          Array<std::int32_t>::Make(device, config.vocab_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.scratch_weights_,
                          Array<std::uint64_t>::Make(device, config.vocab_size));
  return sampler;
}

void Sampler::Run(const ModelWeights& weights, const Batch& batch, const float* hidden,
                  std::span<SampledToken> sampled) {
  std::vector<const BatchSequence*> asking;
  for (const auto* group : {&batch.absorbed, &batch.prefill}) {
    for (const BatchSequence& sequence : *group) {
      if (sequence.sample == nullptr) {
        continue;
      }
      const std::int64_t last_row = sequence.row + sequence.rows - 1;
      ops_->rms_norm({.rows = 1,
                      .columns = hidden_,
                      .x = hidden + last_row * hidden_,
                      .x_stride = hidden_,
                      .weight = weights.final_norm,
                      .epsilon = epsilon_,
                      .y_bf16 = normed_.data() + asking.size() * hidden_,
                      .y_bf16_stride = hidden_});
      asking.push_back(&sequence);
    }
  }
  ops_->gemm({.m = static_cast<std::int64_t>(asking.size()),
              .weight = &weights.lm_head,
              .x = normed_.data(),
              .x_stride = hidden_,
              .y = logits_.data(),
              .y_stride = vocabulary_});
  for (std::size_t i = 0; i < asking.size(); ++i) {
    sampled[asking[i]->index] = SampleRow(*asking[i], logits_.data() + i * vocabulary_);
  }
}

SampledToken Sampler::SampleRow(const BatchSequence& sequence, const float* logits) {
  const SampleSpec& spec = *sequence.sample;
  const auto position = static_cast<std::uint32_t>(sequence.end_position());
  SampledToken result;
  if (!ops_->all_finite(logits, vocabulary_)) {
    result.status = contract::MakeStatus(
        contract::Reason::kNumericFault,
        fmt::format("the logits at position {} hold NaN or infinity", position));
    return result;
  }
  result.token = ops_->sample({.vocabulary = vocabulary_,
                               .logits = logits,
                               .temperature = spec.temperature,
                               .top_k = spec.top_k,
                               .top_p = spec.top_p,
                               .random_bits = kernels::SamplingBits(spec.seed, position),
                               .scratch_ids = scratch_ids_.data(),
                               .scratch_weights = scratch_weights_.data()});
  if (spec.logprobs < 0) {
    return result;
  }
  std::array<std::int32_t, contract::kLogprobsMax> ids;
  std::array<float, contract::kLogprobsMax> logprobs;
  const std::int64_t count =
      std::min({std::int64_t{spec.logprobs}, std::int64_t{contract::kLogprobsMax}, vocabulary_});
  ops_->log_probs({.vocabulary = vocabulary_,
                   .logits = logits,
                   .token = result.token,
                   .token_logprob = &result.logprob,
                   .count = count,
                   .top_ids = ids.data(),
                   .top_logprobs = logprobs.data(),
                   .scratch_ids = scratch_ids_.data()});
  for (std::int64_t i = 0; i < count; ++i) {
    result.top.emplace_back(ids[i], logprobs[i]);
  }
  return result;
}

}  // namespace baleen::worker
