// The inner product that all of the reference's matrix work is made of: one tile step along K for
// 32 columns at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/include/gemm.h"

namespace baleen::kernels::reference {

// Columns computed side by side. Each keeps its own chains, so this is a matter of speed only.
inline constexpr std::int64_t kColumns = 32;

// sums[j] += (even chain + odd chain) over k <= kTileK elements; w is [k][kColumns].
inline void AddTile(const float* x, const float* w, std::int64_t k, float* __restrict sums) {
  float even[kColumns] = {};
  float odd[kColumns] = {};
  std::int64_t i = 0;
  for (; i + 1 < k; i += 2) {
    for (std::int64_t j = 0; j < kColumns; ++j) {
      even[j] = std::fma(x[i], w[i * kColumns + j], even[j]);
    }
    for (std::int64_t j = 0; j < kColumns; ++j) {
      odd[j] = std::fma(x[i + 1], w[(i + 1) * kColumns + j], odd[j]);
    }
  }
  if (i < k) {
    for (std::int64_t j = 0; j < kColumns; ++j) {
      even[j] = std::fma(x[i], w[i * kColumns + j], even[j]);
    }
  }
  for (std::int64_t j = 0; j < kColumns; ++j) {
    sums[j] = sums[j] + (even[j] + odd[j]);
  }
}

// sums[j] += the tiles of k elements in order; the last one may be short.
inline void AddTiles(const float* x, const float* w, std::int64_t k, float* __restrict sums) {
  for (std::int64_t begin = 0; begin < k; begin += kTileK) {
    AddTile(x + begin, w + begin * kColumns, std::min(kTileK, k - begin), sums);
  }
}

}  // namespace baleen::kernels::reference
