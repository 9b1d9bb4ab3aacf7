// Sampling and log-probabilities in the reference backend.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/include/elementary.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/row_sum.h"

namespace baleen::kernels::reference {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

std::int32_t ArgMax(const float* values, std::int64_t count) {
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < count; ++i) {
    best = values[i] > values[best] ? i : best;
  }
  return static_cast<std::int32_t>(best);
}

// Orders ids[0, keep) as the `keep` largest logits, largest first, ties by the lower id.
void SelectLargest(const float* logits, std::int64_t count, std::int64_t keep, std::int32_t* ids) {
  std::iota(ids, ids + count, 0);
  std::partial_sort(ids, ids + keep, ids + count, [logits](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
}

// A probability relative to the largest one, as an integer in [0, 2^40]: sums of integers are
// exact, in whatever order they are made.
std::uint64_t FixedWeight(float logit, float largest, float temperature) {
  return static_cast<std::uint64_t>(Exp((logit - largest) / temperature) * 0x1p+40f);
}

// Number of leading ids whose weights first reach the share top_p of the total. At least one.
std::int64_t NucleusSize(const SampleParams& params, std::int64_t kept, std::uint64_t total) {
  const double needed = static_cast<double>(params.top_p) * static_cast<double>(total);
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < kept; ++i) {
    sum += params.scratch_weights[params.scratch_ids[i]];
    if (static_cast<double>(sum) >= needed) {
      return i + 1;
    }
  }
  return kept;
}

// The high 64 bits of the product: uniform in [0, total).
std::uint64_t Below(std::uint64_t bits, std::uint64_t total) {
  const std::uint64_t low = (bits & 0xffffffffu) * (total & 0xffffffffu);
  const std::uint64_t middle0 = (bits >> 32) * (total & 0xffffffffu);
  const std::uint64_t middle1 = (bits & 0xffffffffu) * (total >> 32);
  const std::uint64_t carry = (low >> 32) + (middle0 & 0xffffffffu) + (middle1 & 0xffffffffu);
  return (bits >> 32) * (total >> 32) + (middle0 >> 32) + (middle1 >> 32) + (carry >> 32);
}

// A weight that min_p keeps is at least this much; the largest weight is 2^40. Weights are whole.
std::uint64_t LeastWeight(const SampleParams& params) {
  return static_cast<std::uint64_t>(std::ceil(static_cast<double>(params.min_p) * 0x1p+40));
}

// The weights of all tokens; those below `least` are zero. Returns the sum.
std::uint64_t WeighAtLeast(const SampleParams& params, float largest, std::uint64_t least) {
  std::uint64_t total = 0;
  for (std::int64_t i = 0; i < params.vocabulary; ++i) {
    const std::uint64_t weight = FixedWeight(params.logits[i], largest, params.temperature);
    params.scratch_weights[i] = weight >= least ? weight : 0;
    total += params.scratch_weights[i];
  }
  return total;
}

// Sets the weights of all tokens outside top-k, top-p and min-p to zero; returns the sum of those
// that stay.
std::uint64_t Truncate(const SampleParams& params, bool nucleus) {
  const std::int64_t vocabulary = params.vocabulary;
  std::int64_t kept = params.top_k > 0 && params.top_k < vocabulary ? params.top_k : vocabulary;
  SelectLargest(params.logits, vocabulary, kept, params.scratch_ids);
  std::uint64_t total = 0;
  for (std::int64_t i = 0; i < kept; ++i) {
    total += params.scratch_weights[params.scratch_ids[i]];
  }
  if (nucleus) {
    kept = NucleusSize(params, kept, total);
  }
  const std::uint64_t least = LeastWeight(params);
  total = 0;
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    std::uint64_t& weight = params.scratch_weights[params.scratch_ids[i]];
    weight = i < kept && weight >= least ? weight : 0;
    total += weight;
  }
  return total;
}

// y = the logits of allowed tokens.
void Mask(const AdjustLogitsParams& params) {
  constexpr std::int64_t kBits = 32;
  const std::int64_t covered = std::min(params.vocabulary, params.allowed_words * kBits);
  for (std::int64_t begin = 0; begin < covered; begin += kBits) {
    const std::uint32_t word = params.allowed[begin / kBits];
    const std::int64_t count = std::min(kBits, covered - begin);
    for (std::int64_t bit = 0; bit < count; ++bit) {
      const float logit = params.logits[begin + bit];
      params.y[begin + bit] = (word >> bit & 1) != 0 ? logit : kBanned;
    }
  }
  std::fill(params.y + covered, params.y + params.vocabulary, kBanned);
}

// Stays finite: a tiny divisor makes the largest number, not infinity, which would be a fault.
float Penalized(const AdjustLogitsParams& params, const TokenUse& use, float logit) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  if (params.repetition_penalty != 1.0f && (use.in_prompt || use.in_reply > 0)) {
    logit = logit > 0.0f ? std::min(logit / params.repetition_penalty, kLargest)
                         : std::max(logit * params.repetition_penalty, -kLargest);
  }
  if (use.in_reply > 0) {
    logit = logit - params.frequency_penalty * static_cast<float>(use.in_reply);
    logit = logit - params.presence_penalty;
  }
  return logit;
}

}  // namespace

bool AllFinite(const float* values, std::int64_t count) {
  constexpr std::uint32_t kExponent = 0x7f800000u;
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    finite &= (std::bit_cast<std::uint32_t>(values[i]) & kExponent) != kExponent;
  }
  return finite;
}

void AdjustLogits(const AdjustLogitsParams& params) {
  if (params.allowed != nullptr) {
    Mask(params);
  } else if (params.y != params.logits) {
    std::copy_n(params.logits, params.vocabulary, params.y);
  }
  // What the mask bans stays banned, so it may come before the biases.
  for (std::int64_t i = 0; i < params.bias_count; ++i) {
    const LogitBias& bias = params.biases[i];
    params.y[bias.token] = bias.bias <= -100.0f ? kBanned : params.y[bias.token] + bias.bias;
  }
  for (std::int64_t i = 0; i < params.use_count; ++i) {
    float& logit = params.y[params.uses[i].token];
    if (logit != kBanned) {
      logit = Penalized(params, params.uses[i], logit);
    }
  }
  for (std::int64_t i = 0; i < params.banned_count; ++i) {
    params.y[params.banned[i]] = kBanned;
  }
}

std::int32_t Sample(const SampleParams& params) {
  const std::int32_t best = ArgMax(params.logits, params.vocabulary);
  const float largest = params.logits[best];
  if (largest == kBanned) {
    return -1;
  }
  if (params.temperature == 0.0f) {
    return best;
  }
  const bool nucleus = params.top_p < 1.0f;
  const bool truncates = nucleus || (params.top_k > 0 && params.top_k < params.vocabulary);
  std::uint64_t total = 0;
  if (params.min_p > 0.0f && !truncates) {
    total = WeighAtLeast(params, largest, LeastWeight(params));
  } else {
    for (std::int64_t i = 0; i < params.vocabulary; ++i) {
      params.scratch_weights[i] = FixedWeight(params.logits[i], largest, params.temperature);
      total += params.scratch_weights[i];
    }
  }
  if (truncates) {
    total = Truncate(params, nucleus);
  }
  const std::uint64_t target = Below(params.random_bits, total);
  std::uint64_t sum = 0;
  for (std::int64_t i = 0; i < params.vocabulary; ++i) {
    sum += params.scratch_weights[i];
    if (sum > target) {
      return static_cast<std::int32_t>(i);
    }
  }
  return best;
}

void LogProbs(const LogProbsParams& params) {
  const float largest = params.logits[ArgMax(params.logits, params.vocabulary)];
  // In float64: a large vocabulary has thousands of terms that are small against their sum.
  double chains[kLanes] = {};
  for (std::int64_t i = 0; i < params.vocabulary; ++i) {
    chains[i % kLanes] = chains[i % kLanes] + static_cast<double>(Exp(params.logits[i] - largest));
  }
  const float log_sum = static_cast<float>(Log(FoldLanes(chains)));
  const auto log_prob = [&](std::int32_t id) { return (params.logits[id] - largest) - log_sum; };
  *params.token_logprob = log_prob(params.token);
  if (params.count == 0) {
    return;
  }
  SelectLargest(params.logits, params.vocabulary, params.count, params.scratch_ids);
  for (std::int64_t i = 0; i < params.count; ++i) {
    params.top_ids[i] = params.scratch_ids[i];
    params.top_logprobs[i] = log_prob(params.scratch_ids[i]);
  }
}

}  // namespace baleen::kernels::reference
