// From the last hidden states of each sequence to its next token, and to log-probabilities.
#include "worker/model/forward/sampler.h"

#include <algorithm>
#include <array>
#include <utility>

#include "fmt/format.h"
#include "kernels/include/philox.h"
#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

using contract::MakeStatus;
using contract::Reason;

// Rows whose logits are computed at a time, at least: reading the output weights once serves them
// all. 16 MB of logits with DeepSeek-V3's vocabulary.
constexpr std::int64_t kRowsMin = 32;

constexpr std::uint32_t kNoWord = 0;  // what an empty mask points to: null would allow all

bool HasPenalties(const SampleSpec& spec) {
  return spec.repetition_penalty != 1.0f || spec.frequency_penalty != 0.0f ||
         spec.presence_penalty != 0.0f;
}

bool ChangesLogits(const SequenceStep& step) {
  return step.mask != nullptr || !step.banned.empty() || !step.sample->biases.empty() ||
         (!step.uses.empty() && HasPenalties(*step.sample));
}

}  // namespace

absl::StatusOr<Sampler> Sampler::Make(const ModelConfig& config, Device& device,
                                      std::int64_t sequences_max) {
  Sampler sampler;
  sampler.ops_ = &device.ops();
  sampler.vocabulary_ = config.vocab_size;
  sampler.hidden_ = config.hidden_size;
  sampler.rows_max_ = std::max(sequences_max, kRowsMin);
  sampler.epsilon_ = config.rms_norm_eps;
  const auto rows = static_cast<std::size_t>(sampler.rows_max_);
  BALEEN_ASSIGN_OR_RETURN(sampler.normed_,
                          Array<std::uint16_t>::Make(device, rows * config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.logits_, Array<float>::Make(device, rows * config.vocab_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.adjusted_, Array<float>::Make(device, config.vocab_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.scratch_ids_,
                          Array<std::int32_t>::Make(device, config.vocab_size));
  BALEEN_ASSIGN_OR_RETURN(sampler.scratch_weights_,
                          Array<std::uint64_t>::Make(device, config.vocab_size));
  return sampler;
}

void Sampler::Run(const ModelWeights& weights, const Batch& batch, const float* hidden,
                  std::span<SampledToken> sampled) {
  scored_.clear();
  chosen_.clear();
  for (const auto* group : {&batch.absorbed, &batch.prefill}) {
    for (const BatchSequence& sequence : *group) {
      sampled[sequence.index] = {};
      const auto followers = static_cast<std::int64_t>(sequence.step->followers.size());
      for (std::int64_t i = 0; i < followers; ++i) {
        scored_.push_back({.sequence = &sequence, .offset = i});
      }
      if (sequence.step->sample != nullptr) {
        chosen_.push_back({.sequence = &sequence, .offset = sequence.rows - 1});
      }
    }
  }
  ForEachLogits(weights, hidden, scored_, [&](const Row& row, float* logits) {
    Score(row, logits, sampled[row.sequence->index]);
  });
  // Masks are awaited last: what others need is done while they are made.
  std::stable_partition(chosen_.begin(), chosen_.end(),
                        [](const Row& row) { return row.sequence->step->mask == nullptr; });
  ForEachLogits(weights, hidden, chosen_, [&](const Row& row, float* logits) {
    Choose(*row.sequence, logits, sampled[row.sequence->index]);
  });
}

// Calls use(row, logits) for each row, in order.
template <typename Use>
void Sampler::ForEachLogits(const ModelWeights& weights, const float* hidden,
                            std::span<const Row> rows, Use use) {
  while (!rows.empty()) {
    const auto piece = rows.first(std::min(rows.size(), static_cast<std::size_t>(rows_max_)));
    rows = rows.subspan(piece.size());
    for (std::size_t i = 0; i < piece.size(); ++i) {
      ops_->rms_norm({.rows = 1,
                      .columns = hidden_,
                      .x = hidden + (piece[i].sequence->row + piece[i].offset) * hidden_,
                      .x_stride = hidden_,
                      .weight = weights.final_norm,
                      .epsilon = epsilon_,
                      .y_bf16 = normed_.data() + i * hidden_,
                      .y_bf16_stride = hidden_});
    }
    ops_->gemm({.m = static_cast<std::int64_t>(piece.size()),
                .weight = &weights.lm_head,
                .x = normed_.data(),
                .x_stride = hidden_,
                .y = logits_.data(),
                .y_stride = vocabulary_});
    for (std::size_t i = 0; i < piece.size(); ++i) {
      use(piece[i], logits_.data() + i * vocabulary_);
    }
  }
}

absl::Status Sampler::CheckFinite(const float* logits, std::int64_t position) const {
  if (ops_->all_finite(logits, vocabulary_)) return absl::OkStatus();
  return MakeStatus(Reason::kNumericFault,
                    fmt::format("the logits at position {} hold NaN or infinity", position));
}

TokenLogprobs Sampler::LogprobsOf(const float* logits, std::int32_t token, std::int64_t top) {
  std::array<std::int32_t, contract::kLogprobsMax> ids;
  std::array<float, contract::kLogprobsMax> logprobs;
  TokenLogprobs result;
  const std::int64_t count = std::min({top, std::int64_t{contract::kLogprobsMax}, vocabulary_});
  ops_->log_probs({.vocabulary = vocabulary_,
                   .logits = logits,
                   .token = token,
                   .token_logprob = &result.logprob,
                   .count = count,
                   .top_ids = ids.data(),
                   .top_logprobs = logprobs.data(),
                   .scratch_ids = scratch_ids_.data()});
  result.top.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) result.top.emplace_back(ids[i], logprobs[i]);
  return result;
}

void Sampler::Score(const Row& row, const float* logits, SampledToken& sampled) {
  if (!sampled.status.ok()) return;
  const SequenceStep& step = *row.sequence->step;
  sampled.status = CheckFinite(logits, row.sequence->position + row.offset + 1);
  if (!sampled.status.ok()) return;
  sampled.followers.push_back(LogprobsOf(logits, step.followers[row.offset], step.followers_top));
}

// What the request's rules make of the logits: in place, unless they are still needed as they are.
absl::StatusOr<const float*> Sampler::Adjust(const SequenceStep& step, float* logits) {
  if (!ChangesLogits(step)) return logits;
  const SampleSpec& spec = *step.sample;
  kernels::AdjustLogitsParams params{
      .vocabulary = vocabulary_,
      .logits = logits,
      .y = spec.logprobs < 0 ? logits : adjusted_.data(),
      .biases = spec.biases.data(),
      .bias_count = static_cast<std::int64_t>(spec.biases.size()),
      .uses = step.uses.data(),
      .use_count = HasPenalties(spec) ? static_cast<std::int64_t>(step.uses.size()) : 0,
      .repetition_penalty = spec.repetition_penalty,
      .frequency_penalty = spec.frequency_penalty,
      .presence_penalty = spec.presence_penalty,
      .banned = step.banned.data(),
      .banned_count = static_cast<std::int64_t>(step.banned.size())};
  if (step.mask != nullptr) {
    BALEEN_ASSIGN_OR_RETURN(const std::span<const std::uint32_t> allowed, step.mask->Await());
    params.allowed = allowed.empty() ? &kNoWord : allowed.data();
    params.allowed_words = static_cast<std::int64_t>(allowed.size());
  }
  ops_->adjust_logits(params);
  return params.y;
}

void Sampler::Choose(const BatchSequence& sequence, float* logits, SampledToken& sampled) {
  if (!sampled.status.ok()) return;
  const SampleSpec& spec = *sequence.step->sample;
  const auto position = static_cast<std::uint32_t>(sequence.end_position());
  sampled.status = CheckFinite(logits, position);
  if (!sampled.status.ok()) return;
  const absl::StatusOr<const float*> adjusted = Adjust(*sequence.step, logits);
  if (!adjusted.ok()) {
    sampled.status = adjusted.status();
    return;
  }
  sampled.token = ops_->sample({.vocabulary = vocabulary_,
                                .logits = *adjusted,
                                .temperature = spec.temperature,
                                .top_k = spec.top_k,
                                .top_p = spec.top_p,
                                .min_p = spec.min_p,
                                .random_bits = kernels::SamplingBits(spec.seed, position),
                                .scratch_ids = scratch_ids_.data(),
                                .scratch_weights = scratch_weights_.data()});
  if (sampled.token < 0) {
    sampled.status = MakeStatus(
        Reason::kInvalidRequest,
        fmt::format("logit_bias, format and min_tokens together allow no token at position {}",
                    position));
  } else if (spec.logprobs >= 0) {
    TokenLogprobs logprobs = LogprobsOf(logits, sampled.token, spec.logprobs);
    sampled.logprob = logprobs.logprob;
    sampled.top = std::move(logprobs.top);
  }
}

}  // namespace baleen::worker
