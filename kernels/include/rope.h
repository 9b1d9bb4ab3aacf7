// Rotary position embedding from a table of cosines and sines (docs/arithmetic.md, "RoPE").
#pragma once

#include <cstdint>

namespace baleen::kernels {

// Rotates pairs (a, b) of each row by the angle of the row's position and rounds to bf16: pair i
// goes to y[i] and y[i + pairs].
struct RopeParams {
  std::int64_t rows = 0;
  std::int64_t heads = 1;    // rows per position: row r has position positions[r / heads]
  std::int64_t pairs = 0;    // rope dimensions / 2
  bool interleaved = true;   // pair i is (x[2i], x[2i + 1]); else (x[i], x[i + pairs])
  const float* x = nullptr;  // [rows][2 * pairs], rows x_stride apart
  std::int64_t x_stride = 0;
  const std::uint32_t* positions = nullptr;  // [rows / heads]
  const float* cosines = nullptr;            // [context][pairs]
  const float* sines = nullptr;              // [context][pairs]
  std::uint16_t* y = nullptr;                // bf16 [rows][2 * pairs], rows y_stride apart
  std::int64_t y_stride = 0;
};

}  // namespace baleen::kernels
