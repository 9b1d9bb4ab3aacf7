// The router's choice of experts from its logits (docs/arithmetic.md, "Routing").
#pragma once

#include <cstdint>

namespace baleen::kernels {

enum class ExpertScore : std::uint8_t { kSigmoid, kSoftmax };

// How a group of experts is rated.
enum class GroupScore : std::uint8_t { kTopTwoSum, kMax };

// Chooses slots_per_row experts for each row, best first; ties go to the lower id.
struct RouteParams {
  std::int64_t rows = 0;
  std::int64_t experts = 0;        // at most kExpertsMax
  std::int64_t slots_per_row = 0;  // <= groups_kept * experts / groups
  std::int64_t groups = 1;         // divides experts; at least two experts a group with kTopTwoSum
  std::int64_t groups_kept = 1;
  ExpertScore score = ExpertScore::kSigmoid;
  GroupScore group_score = GroupScore::kTopTwoSum;
  bool normalise = false;         // divide the chosen scores by their sum
  float scale = 1.0f;             // routed_scaling_factor
  const float* bias = nullptr;    // [experts], added to the scores for the choice only; null = 0
  const float* logits = nullptr;  // [rows][experts]
  std::int32_t* ids = nullptr;    // [rows][slots_per_row], always valid ids
  float* weights = nullptr;       // [rows][slots_per_row]
};

inline constexpr std::int64_t kExpertsMax = 4096;

}  // namespace baleen::kernels
