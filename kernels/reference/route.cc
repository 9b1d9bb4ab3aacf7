// Choice of experts in the reference backend.
#include <array>
#include <limits>

#include "kernels/include/elementary.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/row_sum.h"

namespace baleen::kernels::reference {
namespace {

// Index of the largest of the untaken values, the lowest one among equals. NaN never wins against a
// number. -1: all are taken.
std::int64_t Largest(const float* values, const bool* taken, std::int64_t count) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) {
      best = i;
    }
  }
  return best;
}

void Score(const RouteParams& params, const float* logits, float* scores) {
  if (params.score == ExpertScore::kSigmoid) {
    for (std::int64_t i = 0; i < params.experts; ++i) {
      scores[i] = Sigmoid(logits[i]);
    }
    return;
  }
  float largest = -std::numeric_limits<float>::infinity();
  for (std::int64_t i = 0; i < params.experts; ++i) {
    largest = logits[i] > largest ? logits[i] : largest;
  }
  for (std::int64_t i = 0; i < params.experts; ++i) {
    scores[i] = Exp(logits[i] - largest);
  }
  const float sum = RowSum(scores, params.experts);
  for (std::int64_t i = 0; i < params.experts; ++i) {
    scores[i] = scores[i] / sum;
  }
}

float RateGroup(const RouteParams& params, const float* choices, std::int64_t size) {
  std::array<bool, kExpertsMax> taken;
  std::fill_n(taken.begin(), size, false);
  const std::int64_t first = Largest(choices, taken.data(), size);
  if (params.group_score == GroupScore::kMax) {
    return choices[first];
  }
  taken[first] = true;
  return choices[first] + choices[Largest(choices, taken.data(), size)];
}

// Marks the experts of all groups but the best ones as taken.
void LeaveBestGroups(const RouteParams& params, const float* choices, bool* taken) {
  const std::int64_t size = params.experts / params.groups;
  std::array<float, kExpertsMax> ratings;
  std::array<bool, kExpertsMax> kept;
  for (std::int64_t group = 0; group < params.groups; ++group) {
    ratings[group] = RateGroup(params, choices + group * size, size);
    kept[group] = false;
  }
  for (std::int64_t i = 0; i < params.groups_kept; ++i) {
    kept[Largest(ratings.data(), kept.data(), params.groups)] = true;
  }
  for (std::int64_t i = 0; i < params.experts; ++i) {
    taken[i] = !kept[i / size];
  }
}

void RouteRow(const RouteParams& params, const float* logits, std::int32_t* ids, float* weights) {
  std::array<float, kExpertsMax> scores;
  std::array<float, kExpertsMax> choices;
  std::array<bool, kExpertsMax> taken;
  Score(params, logits, scores.data());
  for (std::int64_t i = 0; i < params.experts; ++i) {
    choices[i] = params.bias == nullptr ? scores[i] : scores[i] + params.bias[i];
    taken[i] = false;
  }
  if (params.groups_kept < params.groups) {
    LeaveBestGroups(params, choices.data(), taken.data());
  }
  float sum = 0.0f;
  for (std::int64_t slot = 0; slot < params.slots_per_row; ++slot) {
    const std::int64_t id = Largest(choices.data(), taken.data(), params.experts);
    taken[id] = true;
    ids[slot] = static_cast<std::int32_t>(id);
    weights[slot] = scores[id];
    sum = sum + scores[id];
  }
  for (std::int64_t slot = 0; slot < params.slots_per_row; ++slot) {
    const float share = params.normalise ? weights[slot] / (sum + 1e-20f) : weights[slot];
    weights[slot] = share * params.scale;
  }
}

}  // namespace

void Route(const RouteParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    RouteRow(params, params.logits + row * params.experts, params.ids + row * params.slots_per_row,
             params.weights + row * params.slots_per_row);
  }
}

}  // namespace baleen::kernels::reference
