// Small ops on rows: embedding, residual, rounding, SiLU, and the combination of expert outputs.
#pragma once

#include <cstdint>

#include "kernels/include/weight.h"

namespace baleen::kernels {

// y[i] = table[ids[i]]
struct EmbedParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const std::int32_t* ids = nullptr;  // [rows], each a valid row of the table
  WeightFormat format = WeightFormat::kBf16;
  const void* table = nullptr;  // bf16 or fp32 [vocabulary][columns], aligned
  float* y = nullptr;           // [rows][columns]
};

// y = y + x, fp32.
struct AddParams {
  std::int64_t count = 0;
  const float* x = nullptr;
  float* y = nullptr;
};

// y = x rounded to bf16.
struct RoundParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const float* x = nullptr;  // rows x_stride apart
  std::int64_t x_stride = 0;
  std::uint16_t* y = nullptr;  // rows y_stride apart
  std::int64_t y_stride = 0;
};

// y = Silu(gate) * up, rounded to bf16: the input of a down projection.
struct SiluMultiplyParams {
  std::int64_t count = 0;
  const float* gate = nullptr;
  const float* up = nullptr;
  std::uint16_t* y = nullptr;
};

// y[i] = sum over slots s in order of weights[i][s] * slots[i][s], plus shared[i].
struct CombineParams {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t slots_per_row = 0;        // experts of a token
  const std::uint16_t* slots = nullptr;  // bf16 [rows][slots_per_row][columns]
  const float* weights = nullptr;        // [rows][slots_per_row]
  const float* shared = nullptr;         // [rows][columns], or null: no shared expert
  float* y = nullptr;                    // [rows][columns]
};

}  // namespace baleen::kernels
