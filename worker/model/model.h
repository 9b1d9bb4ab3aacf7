// The model as the engine sees it: one step over a batch of sequences, in and out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/include/sample.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/model/token_mask.h"

namespace baleen::worker {

using kernels::LogitBias;
using kernels::TokenUse;

// How to choose a token (baleen.v1.SamplingParams states the ranges; they are validated before they
// get here).
struct SampleSpec {
  float temperature = 0.0f;  // 0 = greedy: argmax, ties to the lower id
  std::uint32_t top_k = 0;   // 0 = all
  float top_p = 1.0f;        // (0, 1]
  std::uint64_t seed = 0;
  std::int32_t logprobs =
      -1;  // number of most probable tokens to report, 0 to 20; -1 = no log-probabilities
  float min_p = 0.0f;               // 0 = all
  float repetition_penalty = 1.0f;  // of tokens that the prompt or the reply has; 1 = none
  float frequency_penalty = 0.0f;   // of tokens that the reply has, for each time; 0 = none
  float presence_penalty = 0.0f;    // of tokens that the reply has; 0 = none
  std::vector<LogitBias> biases;    // of different tokens

  friend bool operator==(const SampleSpec&, const SampleSpec&) = default;
};

// The two forms of MLA. They differ in the last bits, so the choice is part of the contract: prompt
// tokens always take the prefill form, generated tokens always the absorbed form.
enum class AttentionForm : std::uint8_t { kPrefill, kAbsorbed };

// One sequence's share of a step.
struct SequenceStep {
  std::span<const std::int32_t> tokens;  // to compute, at least one
  std::uint32_t position =
      0;  // absolute position of tokens[0]; everything before is in the KV cache
  // KV block of positions [64 i, 64 i + 64); covers position + tokens.size().
  std::span<const std::uint32_t> block_table;
  AttentionForm form = AttentionForm::kPrefill;
  // Non-null: sample the token that follows the last of `tokens`. Its random numbers are keyed by
  // (seed, position + tokens.size()).
  const SampleSpec* sample = nullptr;
  // What choosing depends on besides `sample`; read only when that is not null.
  std::span<const TokenUse> uses;        // what has been written: all that penalties need
  std::span<const std::int32_t> banned;  // never chosen; in the vocabulary
  TokenMask* mask = nullptr;             // null: every other token may be chosen
  // Not empty: for each i report how probable followers[i] was after the first i + 1 of `tokens`,
  // and the `followers_top` most probable tokens there (0 to 20). At most as many as `tokens`.
  std::span<const std::int32_t> followers;
  std::uint32_t followers_top = 0;
  // Names the request, the same in every attempt of it. With the position it decides which replica
  // of an expert computes a token: where, never what.
  std::uint64_t request = 0;
};

// The KV cache: `blocks` blocks of ModelInfo::kv_block_bytes each, one after the other. Block
// layout: [layer][token 0..63][kv_lora_rank + qk_rope_head_dim] bf16.
struct KvView {
  std::byte* base = nullptr;  // aligned to 64
  std::uint32_t blocks = 0;
};

// Natural logarithms of the unmodified distribution: temperature 1, before everything else.
struct TokenLogprobs {
  float logprob = 0.0f;
  std::vector<std::pair<std::int32_t, float>> top;  // most probable first, ties by the lower id

  friend bool operator==(const TokenLogprobs&, const TokenLogprobs&) = default;
};

struct SampledToken {
  // A contract::Reason when there is no token: kNumericFault, the logits hold NaN or infinity;
  // kInvalidRequest, what the request asks for bans every token; or the error of the mask.
  absl::Status status;
  std::int32_t token = -1;
  // Filled when SampleSpec::logprobs >= 0; as TokenLogprobs.
  float logprob = 0.0f;
  std::vector<std::pair<std::int32_t, float>> top;
  // Of SequenceStep::followers, also when no token was asked for.
  std::vector<TokenLogprobs> followers;
};

// Constant facts of a loaded model.
struct ModelInfo {
  std::string name;    // last component of the directory, unless overridden
  std::string digest;  // 64 hexadecimal digits (baleen.v1.ModelIdentity)
  std::uint32_t context_tokens = 0;
  std::uint32_t vocabulary_size = 0;
  std::vector<std::int32_t> eos_token_ids;
  std::size_t kv_block_bytes = 0;
  std::string arithmetic;              // version of docs/arithmetic.md, for example "baleen-bf16-1"
  std::uint64_t checkpoint_bytes = 0;  // of all weight files
};

// How a step is taken together with the other ranks of a group.
struct GroupStep {
  AllToAll* all_to_all = nullptr;  // null: this rank holds all experts
  // Parts of the batch whose layers overlap: 1 to kLanes, the same on all ranks.
  int micro_batches = 1;
};

struct StepLimits {
  std::uint32_t tokens_max = 512;    // over all sequences of a step
  std::uint32_t sequences_max = 64;  // in a step
};

// Real: DeepSeekModel (worker/model/deepseek_model.h). Twin: FakeModel (tests/fakes). One thread at
// a time.
class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelInfo& info() const = 0;
  // Computes the batch, writes its KV, and fills sampled[i] for every sequence i that asks for a
  // token or for followers (`sampled` has one entry for each sequence). Rows are independent: the
  // result for a sequence is the same bits whatever else is in the batch, on however many ranks. In
  // a group the batch may be empty: the other ranks need this one's experts. An error means that
  // nothing of the step may be used; in a group it is the end of the epoch. Precondition: the
  // StepLimits that the model was made with.
  virtual absl::Status Step(std::span<const SequenceStep> sequences, KvView kv,
                            const GroupStep& group, std::span<SampledToken> sampled) = 0;
};

}  // namespace baleen::worker
