// RMSNorm (docs/arithmetic.md, "RMSNorm").
#pragma once

#include <cstdint>

namespace baleen::kernels {

// y[i] = x[i] / sqrt(mean(x[i]^2) + epsilon) * weight, fp32.
struct RmsNormParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const float* x = nullptr;  // [rows][columns], rows x_stride apart
  std::int64_t x_stride = 0;
  const float* weight = nullptr;  // [columns]
  float epsilon = 0.0f;
  // At least one of these is not null.
  float* y = nullptr;               // [rows][columns]; may be x when x_stride = columns
  std::uint16_t* y_bf16 = nullptr;  // the same rounded, rows y_bf16_stride apart
  std::int64_t y_bf16_stride = 0;
};

}  // namespace baleen::kernels
