// Sampling and log-probabilities in the reference backend.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "kernels/include/elementary.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/row_sum.h"

namespace baleen::kernels::reference {
namespace {

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

// Sets the weights of all tokens outside top-k and top-p to zero; returns the sum of those that
// stay.
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
  total = 0;
  for (std::int64_t i = 0; i < vocabulary; ++i) {
    std::uint64_t& weight = params.scratch_weights[params.scratch_ids[i]];
    weight = i < kept ? weight : 0;
    total += weight;
  }
  return total;
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

std::int32_t Sample(const SampleParams& params) {
  const std::int32_t best = ArgMax(params.logits, params.vocabulary);
  if (params.temperature == 0.0f) {
    return best;
  }
  const float largest = params.logits[best];
  std::uint64_t total = 0;
  for (std::int64_t i = 0; i < params.vocabulary; ++i) {
    params.scratch_weights[i] = FixedWeight(params.logits[i], largest, params.temperature);
    total += params.scratch_weights[i];
  }
  const bool nucleus = params.top_p < 1.0f;
  if (nucleus || (params.top_k > 0 && params.top_k < params.vocabulary)) {
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
  SelectLargest(params.logits, params.vocabulary, params.count, params.scratch_ids);
  for (std::int64_t i = 0; i < params.count; ++i) {
    params.top_ids[i] = params.scratch_ids[i];
    params.top_logprobs[i] = log_prob(params.scratch_ids[i]);
  }
}

}  // namespace baleen::kernels::reference
