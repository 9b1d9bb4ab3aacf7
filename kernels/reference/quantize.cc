// FP8 rows in the reference backend.
#include <algorithm>

#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"

namespace baleen::kernels::reference {
namespace {

void QuantizeBlock(const std::uint16_t* x, std::int64_t count, std::uint8_t* codes, float* scale) {
  std::uint16_t largest = 0;  // magnitudes of bf16 are in the order of their bits
  for (std::int64_t i = 0; i < count; ++i) {
    largest = std::max<std::uint16_t>(largest, x[i] & 0x7fffu);
  }
  if (largest >= 0x7f80u) {
    *scale = Bf16ToFloat(0x7fc0u);
    std::fill_n(codes, count, std::uint8_t{0x7f});
    return;
  }
  *scale = Bf16ToFloat(largest) / kE4m3Max;
  if (*scale == 0.0f) {
    std::fill_n(codes, count, std::uint8_t{0});
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    codes[i] = FloatToE4m3(Bf16ToFloat(x[i]) / *scale);
  }
}

}  // namespace

void QuantizeRows(const QuantizeRowsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const std::uint16_t* x = params.x + row * params.columns;
    std::uint8_t* codes = params.codes + row * params.codes_stride;
    float* scales = params.scales + row * params.scales_stride;
    for (std::int64_t begin = 0; begin < params.columns; begin += kScaleBlock) {
      QuantizeBlock(x + begin, std::min(kScaleBlock, params.columns - begin), codes + begin,
                    scales + begin / kScaleBlock);
    }
  }
}

void DequantizeRows(const DequantizeRowsParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const std::int64_t from = params.x_rows == nullptr ? row : params.x_rows[row];
    const std::uint8_t* codes = params.codes + from * params.codes_stride;
    const float* scales = params.scales + from * params.scales_stride;
    std::uint16_t* y = params.y + row * params.columns;
    for (std::int64_t i = 0; i < params.columns; ++i) {
      y[i] = FloatToBf16(E4m3ToFloat(codes[i]) * scales[i / kScaleBlock]);
    }
  }
}

}  // namespace baleen::kernels::reference
