// Embedding, residual, rounding, SiLU, RoPE and combination in the reference backend.
#include <algorithm>
#include <cmath>

#include "kernels/include/elementary.h"
#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"

namespace baleen::kernels::reference {

void Embed(const EmbedParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const std::int64_t begin = params.ids[row] * params.columns;
    float* y = params.y + row * params.columns;
    if (params.format == WeightFormat::kF32) {
      std::copy_n(static_cast<const float*>(params.table) + begin, params.columns, y);
      continue;
    }
    const auto* table = static_cast<const std::uint16_t*>(params.table) + begin;
    std::transform(table, table + params.columns, y, Bf16ToFloat);
  }
}

void Add(const AddParams& params) {
  for (std::int64_t i = 0; i < params.count; ++i) {
    params.y[i] = params.y[i] + params.x[i];
  }
}

void Round(const RoundParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    for (std::int64_t i = 0; i < params.columns; ++i) {
      params.y[row * params.y_stride + i] = FloatToBf16(params.x[row * params.x_stride + i]);
    }
  }
}

void SiluMultiply(const SiluMultiplyParams& params) {
  for (std::int64_t i = 0; i < params.count; ++i) {
    params.y[i] = FloatToBf16(Silu(params.gate[i]) * params.up[i]);
  }
}

void Rope(const RopeParams& params) {
  const std::int64_t pairs = params.pairs;
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float* x = params.x + row * params.x_stride;
    const std::int64_t table = params.positions[row / params.heads] * pairs;
    std::uint16_t* y = params.y + row * params.y_stride;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const float a = params.interleaved ? x[2 * i] : x[i];
      const float b = params.interleaved ? x[2 * i + 1] : x[i + pairs];
      const float cosine = params.cosines[table + i];
      const float sine = params.sines[table + i];
      y[i] = FloatToBf16(std::fma(a, cosine, -(b * sine)));
      y[i + pairs] = FloatToBf16(std::fma(b, cosine, a * sine));
    }
  }
}

void Combine(const CombineParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    float* y = params.y + row * params.columns;
    std::fill_n(y, params.columns, 0.0f);
    for (std::int64_t slot = 0; slot < params.slots_per_row; ++slot) {
      const std::int64_t at = row * params.slots_per_row + slot;
      const std::uint16_t* output = params.slots + at * params.columns;
      for (std::int64_t i = 0; i < params.columns; ++i) {
        y[i] = std::fma(params.weights[at], Bf16ToFloat(output[i]), y[i]);
      }
    }
    if (params.shared != nullptr) {
      const float* shared = params.shared + row * params.columns;
      for (std::int64_t i = 0; i < params.columns; ++i) {
        y[i] = y[i] + shared[i];
      }
    }
  }
}

}  // namespace baleen::kernels::reference
