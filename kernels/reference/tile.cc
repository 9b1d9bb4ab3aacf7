// The two inner loops that all of the reference's matrix work is made of.
#include "kernels/reference/tile.h"

#include <algorithm>
#include <cmath>

#include "kernels/include/numeric_formats.h"

namespace baleen::kernels::reference {
namespace {

// One tile step: sums[j] += (even chain + odd chain) over k <= kTileK elements.
void AddTile(const float* x, const float* w, std::int64_t k, float* __restrict sums) {
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

}  // namespace

void AddTiles(const float* x, const float* w, std::int64_t k, float* sums) {
  for (std::int64_t begin = 0; begin < k; begin += kTileK) {
    AddTile(x + begin, w + begin * kColumns, std::min(kTileK, k - begin), sums);
  }
}

void Widen(const std::uint16_t* bf16, std::int64_t count, float* fp32) {
  for (std::int64_t i = 0; i < count; ++i) {
    fp32[i] = Bf16ToFloat(bf16[i]);
  }
}

}  // namespace baleen::kernels::reference
