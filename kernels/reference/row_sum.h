// The stated order of every sum along a row: 32 interleaved chains, then a tree
// (docs/arithmetic.md, "Row sums").
#pragma once

#include <cstdint>

namespace baleen::kernels::reference {

inline constexpr std::int64_t kLanes = 32;

// chains[j] holds the sum of the elements i with i mod 32 = j. Destroys chains.
template <typename T>
T FoldLanes(T* chains) {
  for (std::int64_t half = kLanes / 2; half >= 1; half /= 2) {
    for (std::int64_t j = 0; j < half; ++j) {
      chains[j] = chains[j] + chains[j + half];
    }
  }
  return chains[0];
}

inline float RowSum(const float* values, std::int64_t count) {
  float chains[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) {
    chains[i % kLanes] = chains[i % kLanes] + values[i];
  }
  return FoldLanes(chains);
}

}  // namespace baleen::kernels::reference
