// Rows in FP8, as they travel to their experts (docs/arithmetic.md, "Dispatch in FP8"): e4m3 codes,
// and a scale for every kScaleBlock columns.
#pragma once

#include <cstdint>

#include "kernels/include/weight.h"

namespace baleen::kernels {

// codes[i][j] = x[i][j] / scales[i][j / 128], rounded to e4m3; the largest value of a block becomes
// the largest code. A block with a NaN or infinity is all NaN.
struct QuantizeRowsParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::uint16_t* x = nullptr;  // bf16 [rows][columns]
  std::uint8_t* codes = nullptr;     // e4m3 [rows][columns], rows codes_stride apart
  std::int64_t codes_stride = 0;
  float* scales = nullptr;  // [rows][ceil(columns / 128)], rows scales_stride apart
  std::int64_t scales_stride = 0;
};

// y[i][j] = codes[i][j] * scales[i][j / 128], rounded to bf16.
struct DequantizeRowsParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::uint8_t* codes = nullptr;  // as above
  std::int64_t codes_stride = 0;
  const float* scales = nullptr;
  std::int64_t scales_stride = 0;
  const std::int32_t* x_rows = nullptr;  // null, or [rows]: row i is of row x_rows[i] of codes
  std::uint16_t* y = nullptr;            // bf16 [rows][columns]
};

}  // namespace baleen::kernels
