// From logits to a token, and to log-probabilities (docs/arithmetic.md, "Sampling").
#pragma once

#include <cstdint>

namespace baleen::kernels {

// Added to a token's logit; -100 (or less) bans the token.
struct LogitBias {
  std::int32_t token = 0;
  float bias = 0.0f;

  friend bool operator==(const LogitBias&, const LogitBias&) = default;
};

// A token that has been written: in the prompt, or some times in the reply.
struct TokenUse {
  std::int32_t token = 0;
  std::uint32_t in_reply = 0;  // times; below 2^24
  bool in_prompt = false;

  friend bool operator==(const TokenUse&, const TokenUse&) = default;
};

// One row: changes logits as a request asks for, in the order of the fields from `biases` on. A
// banned token has the logit -infinity; all others stay finite. All ids are in the vocabulary, and
// `biases` and `uses` each have a token once.
struct AdjustLogitsParams {
  std::int64_t vocabulary = 0;
  const float* logits = nullptr;  // [vocabulary], all finite
  float* y = nullptr;             // [vocabulary]; may be `logits`
  const LogitBias* biases = nullptr;
  std::int64_t bias_count = 0;
  // Null: every token is allowed. Else token i is allowed if bit i mod 32 of word i / 32 is set;
  // those beyond the last word are not.
  const std::uint32_t* allowed = nullptr;
  std::int64_t allowed_words = 0;
  const TokenUse* uses = nullptr;
  std::int64_t use_count = 0;
  float repetition_penalty = 1.0f;  // (0, 2]; divides positive logits, multiplies others
  float frequency_penalty = 0.0f;   // [-2, 2]; subtracted for each time in the reply
  float presence_penalty = 0.0f;    // [-2, 2]; subtracted if it is in the reply
  const std::int32_t* banned = nullptr;
  std::int64_t banned_count = 0;
};

// One row: chooses the next token; -1 when all are banned.
struct SampleParams {
  std::int64_t vocabulary = 0;               // at most 2^22: sums of weights fit 64 bits
  const float* logits = nullptr;             // [vocabulary], finite or -infinity
  float temperature = 0.0f;                  // 0 = the largest logit, ties to the lower id
  std::int64_t top_k = 0;                    // 0 = all
  float top_p = 1.0f;                        // (0, 1]
  float min_p = 0.0f;                        // [0, 1]; 0 = all
  std::uint64_t random_bits = 0;             // SamplingBits(seed, position)
  std::int32_t* scratch_ids = nullptr;       // [vocabulary]
  std::uint64_t* scratch_weights = nullptr;  // [vocabulary]
};

// One row: the `count` most probable tokens (ties to the lower id) and their natural
// log-probabilities, and that of `token`.
struct LogProbsParams {
  std::int64_t vocabulary = 0;
  const float* logits = nullptr;  // [vocabulary], all finite
  std::int32_t token = 0;
  float* token_logprob = nullptr;
  std::int64_t count = 0;               // 0..vocabulary
  std::int32_t* top_ids = nullptr;      // [count]
  float* top_logprobs = nullptr;        // [count]
  std::int32_t* scratch_ids = nullptr;  // [vocabulary]
};

}  // namespace baleen::kernels
