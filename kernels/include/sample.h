// From logits to a token, and to log-probabilities (docs/arithmetic.md, "Sampling").
#pragma once

#include <cstdint>

namespace baleen::kernels {

// A token that has been written: in the prompt, or some times in the reply.
struct TokenUse {
  std::int32_t token = 0;
  std::uint32_t in_reply = 0;  // times
  bool in_prompt = false;
};

// One row: chooses the next token.
struct SampleParams {
  std::int64_t vocabulary = 0;               // at most 2^22: sums of weights fit 64 bits
  const float* logits = nullptr;             // [vocabulary], all finite
  float temperature = 0.0f;                  // 0 = the largest logit, ties to the lower id
  std::int64_t top_k = 0;                    // 0 = all
  float top_p = 1.0f;                        // (0, 1]
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
