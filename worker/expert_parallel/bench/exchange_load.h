// What the two sides of the benchmark exchange: DeepSeek-R1's rows, each for 8 of 256 experts
// chosen at random, the same for both.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "worker/expert_parallel/all_to_all.h"

namespace baleen::worker {

inline AllToAllShape BenchShape(std::int32_t ranks, std::int32_t tokens) {
  constexpr std::int32_t kExperts = 256;
  constexpr std::int32_t kRowBytes = 7168 * 2;
  return {.ranks = ranks,
          .slots_per_rank = kExperts / ranks,
          .slots_per_row = 8,
          .row_bytes = kRowBytes,
          .output_bytes = kRowBytes,
          .rows_max = tokens,
          .wait_max = absl::Seconds(60)};
}

// [tokens][slots_per_row]
inline std::vector<std::int32_t> BenchSlots(const AllToAllShape& shape, std::int32_t rank) {
  std::mt19937 random(rank + 1);
  std::vector<std::int32_t> all(shape.ranks * shape.slots_per_rank);
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::int32_t> slots;
  for (std::int32_t row = 0; row < shape.rows_max; ++row) {
    for (std::int32_t i = 0; i < shape.slots_per_row; ++i) {
      std::swap(all[i], all[i + random() % (all.size() - i)]);
      slots.push_back(all[i]);
    }
  }
  return slots;
}

// Steps that are timed, after as many tenths that are not.
inline int BenchSteps(std::int32_t tokens) { return std::clamp(20'000 / tokens, 10, 2'000); }

// Of one rank, in seconds, by step.
struct BenchTimes {
  std::vector<double> dispatch;
  std::vector<double> combine;
  std::vector<double> step;
};

// The median over steps of the slowest rank. `seconds`: [ranks][steps].
inline double MedianOfSlowest(const std::vector<std::vector<double>>& seconds) {
  std::vector<double> slowest = seconds.front();
  for (const auto& rank : seconds) {
    for (std::size_t i = 0; i < rank.size(); ++i) slowest[i] = std::max(slowest[i], rank[i]);
  }
  std::ranges::nth_element(slowest, slowest.begin() + slowest.size() / 2);
  return slowest[slowest.size() / 2];
}

}  // namespace baleen::worker
