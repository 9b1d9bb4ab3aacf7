// Matrix products (docs/arithmetic.md, "GEMM" and "Gate product").
#pragma once

#include <cstdint>

#include "kernels/include/weight.h"

namespace baleen::kernels {

// Products are summed in tiles of this many elements of K: what one AMX tile step does.
inline constexpr std::int64_t kTileK = 32;

// y[i][j] = sum over k of x[i][k] * weight[j][k], fp32 sums. Rows are independent.
struct GemmParams {
  std::int64_t m = 0;                    // rows; n and k are the weight's
  const PackedWeight* weight = nullptr;  // kBf16 or kFp8Block
  const std::uint16_t* x = nullptr;      // bf16 [m][k], rows x_stride elements apart
  std::int64_t x_stride = 0;
  // Null, or [m]: row i of the product reads row x_rows[i] of x, and is written to row y_rows[i] of
  // y (an expert's tokens, without a copy).
  const std::int32_t* x_rows = nullptr;
  const std::int32_t* y_rows = nullptr;
  // Exactly one of these is not null. [m][n], rows y_stride elements apart.
  float* y = nullptr;
  std::uint16_t* y_bf16 = nullptr;  // the fp32 result rounded to bf16
  std::int64_t y_stride = 0;
};

// The router's logits: activations and weights both fp32, the sums in the same order as Gemm
// without scales.
struct GateGemmParams {
  std::int64_t m = 0;
  const PackedWeight* weight = nullptr;  // kF32
  const float* x = nullptr;              // [m][k]
  float* y = nullptr;                    // [m][n]
};

}  // namespace baleen::kernels
