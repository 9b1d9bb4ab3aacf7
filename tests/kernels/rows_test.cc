// Ops that work row by row: RMSNorm, RoPE, embedding, residual, rounding, SiLU, combination,
// FP8. Each against float64 or its exact meaning, and each row on its own.
#include <cstring>
#include <string>

#include "gtest/gtest.h"
#include "kernels/include/elementary.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

// docs/arithmetic.md, "Row sums", of the terms term(0), .., term(count - 1) added by `add`.
template <typename Add>
float DefinedRowSum(std::int64_t count, Add add) {
  std::vector<float> chains(32, 0.0f);
  for (std::int64_t i = 0; i < count; ++i) {
    chains[i % 32] = add(chains[i % 32], i);
  }
  for (std::int64_t half : {16, 8, 4, 2, 1}) {
    for (std::int64_t j = 0; j < half; ++j) {
      chains[j] = chains[j] + chains[j + half];
    }
  }
  return chains[0];
}

TEST(RmsNorm, IsTheDefinitionAndNearFloat64) {
  Random random(1);
  for (const std::int64_t columns : {1, 2, 31, 32, 33, 128, 256, 1536, 7168}) {
    SCOPED_TRACE(std::to_string(columns));
    const std::int64_t stride = columns + 3;
    const std::vector<float> x = random.Floats(3 * stride, 5.0f);
    const std::vector<float> weight = random.Floats(columns);
    std::vector<float> y(3 * columns, kNan);
    std::vector<std::uint16_t> y_bf16(3 * (columns + 1), kNanBf16);
    reference::RmsNorm({.rows = 3,
                        .columns = columns,
                        .x = x.data(),
                        .x_stride = stride,
                        .weight = weight.data(),
                        .epsilon = 1e-6f,
                        .y = y.data(),
                        .y_bf16 = y_bf16.data(),
                        .y_bf16_stride = columns + 1});
    for (std::int64_t row = 0; row < 3; ++row) {
      const float* values = x.data() + row * stride;
      const float sum = DefinedRowSum(columns, [&](float chain, std::int64_t i) {
        return std::fma(values[i], values[i], chain);
      });
      const float factor = 1.0f / std::sqrt(sum / static_cast<float>(columns) + 1e-6f);
      double square = 0.0;
      for (std::int64_t i = 0; i < columns; ++i) {
        square += static_cast<double>(values[i]) * values[i];
      }
      const double exact = 1.0 / std::sqrt(square / static_cast<double>(columns) + 1e-6);
      for (std::int64_t i = 0; i < columns; ++i) {
        const float value = y[row * columns + i];
        ASSERT_EQ(Bits(value), Bits(values[i] * factor * weight[i])) << i;
        const double near = values[i] * exact * weight[i];
        ASSERT_NEAR(value, near, (8.0 + columns / 64.0) * 0x1p-24 * std::fabs(near)) << i;
        ASSERT_EQ(y_bf16[row * (columns + 1) + i], FloatToBf16(value));
      }
      ASSERT_EQ(y_bf16[row * (columns + 1) + columns], kNanBf16);
    }
  }
}

TEST(RmsNorm, WorksInPlaceAndRowByRow) {
  Random random(2);
  const std::vector<float> x = random.Floats(33 * 100);
  const std::vector<float> weight = random.Floats(100);
  std::vector<float> all = x;
  const auto norm = [&](std::vector<float>& values, std::int64_t rows) {
    reference::RmsNorm({.rows = rows,
                        .columns = 100,
                        .x = values.data(),
                        .x_stride = 100,
                        .weight = weight.data(),
                        .epsilon = 1e-5f,
                        .y = values.data()});
  };
  norm(all, 33);
  for (std::int64_t rows = 1; rows <= 33; ++rows) {
    std::vector<float> some(x.end() - rows * 100, x.end());
    norm(some, rows);
    ASSERT_EQ(std::memcmp(some.data(), all.data() + (33 - rows) * 100, some.size() * 4), 0);
  }
}

TEST(RmsNorm, OfZerosIsZero) {
  const std::vector<float> x(64, 0.0f);
  const std::vector<float> weight(64, 3.0f);
  std::vector<float> y(64, kNan);
  reference::RmsNorm({.rows = 1,
                      .columns = 64,
                      .x = x.data(),
                      .x_stride = 64,
                      .weight = weight.data(),
                      .epsilon = 1e-6f,
                      .y = y.data()});
  EXPECT_EQ(y, std::vector<float>(64, 0.0f));
}

TEST(Rope, RotatesPairsOfBothLayouts) {
  Random random(3);
  constexpr std::int64_t kPairs = 5;
  const std::vector<std::uint32_t> positions = {0, 7, 31};
  std::vector<float> cosines(32 * kPairs);
  std::vector<float> sines(32 * kPairs);
  for (std::size_t i = 0; i < cosines.size(); ++i) {
    cosines[i] = static_cast<float>(std::cos(0.37 * static_cast<double>(i)));
    sines[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i)));
  }
  for (const bool interleaved : {true, false}) {
    const std::vector<float> x = random.Floats(6 * 13);
    std::vector<std::uint16_t> y(6 * 11, kNanBf16);
    reference::Rope({.rows = 6,
                     .heads = 2,
                     .pairs = kPairs,
                     .interleaved = interleaved,
                     .x = x.data(),
                     .x_stride = 13,
                     .positions = positions.data(),
                     .cosines = cosines.data(),
                     .sines = sines.data(),
                     .y = y.data(),
                     .y_stride = 11});
    for (std::int64_t row = 0; row < 6; ++row) {
      for (std::int64_t i = 0; i < kPairs; ++i) {
        const float a = x[row * 13 + (interleaved ? 2 * i : i)];
        const float b = x[row * 13 + (interleaved ? 2 * i + 1 : i + kPairs)];
        const float cosine = cosines[positions[row / 2] * kPairs + i];
        const float sine = sines[positions[row / 2] * kPairs + i];
        EXPECT_EQ(y[row * 11 + i], FloatToBf16(std::fma(a, cosine, -(b * sine))));
        EXPECT_EQ(y[row * 11 + kPairs + i], FloatToBf16(std::fma(b, cosine, a * sine)));
        const double exact = static_cast<double>(a) * cosine - static_cast<double>(b) * sine;
        EXPECT_NEAR(Bf16ToFloat(y[row * 11 + i]), exact, 0x1p-8 * (std::fabs(exact) + 1e-6));
      }
      EXPECT_EQ(y[row * 11 + 10], kNanBf16);
    }
  }
}

TEST(Embed, CopiesRowsOfBothFormats) {
  Random random(4);
  const std::vector<std::uint16_t> bf16 = random.Bf16(5 * 9);
  const std::vector<float> fp32 = random.Floats(5 * 9);
  const std::int32_t ids[] = {4, 0, 4};
  std::vector<float> y(3 * 9, kNan);
  EmbedParams params{.rows = 3, .columns = 9, .ids = ids, .table = bf16.data(), .y = y.data()};
  reference::Embed(params);
  for (std::int64_t i = 0; i < 27; ++i) {
    EXPECT_EQ(y[i], Bf16ToFloat(bf16[ids[i / 9] * 9 + i % 9]));
  }
  params.format = WeightFormat::kF32;
  params.table = fp32.data();
  reference::Embed(params);
  for (std::int64_t i = 0; i < 27; ++i) {
    EXPECT_EQ(y[i], fp32[ids[i / 9] * 9 + i % 9]);
  }
}

TEST(Add, AddsInPlace) {
  Random random(5);
  const std::vector<float> x = random.Floats(77);
  const std::vector<float> before = random.Floats(77);
  std::vector<float> y = before;
  reference::Add({.count = 77, .x = x.data(), .y = y.data()});
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(y[i], before[i] + x[i]);
  }
}

TEST(Round, KeepsToItsRowsAndColumns) {
  Random random(6);
  const std::vector<float> x = random.Floats(4 * 10);
  std::vector<std::uint16_t> y(4 * 12, kNanBf16);
  reference::Round(
      {.rows = 4, .columns = 7, .x = x.data(), .x_stride = 10, .y = y.data(), .y_stride = 12});
  for (std::int64_t i = 0; i < 48; ++i) {
    EXPECT_EQ(y[i], i % 12 < 7 ? FloatToBf16(x[i / 12 * 10 + i % 12]) : kNanBf16) << i;
  }
}

TEST(SiluMultiply, IsNearFloat64) {
  Random random(7);
  const std::vector<float> gate = random.Floats(1000, 6.0f);
  const std::vector<float> up = random.Floats(1000, 3.0f);
  std::vector<std::uint16_t> y(1000, kNanBf16);
  reference::SiluMultiply({.count = 1000, .gate = gate.data(), .up = up.data(), .y = y.data()});
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(y[i], FloatToBf16(Silu(gate[i]) * up[i]));
    const double exact = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i];
    EXPECT_NEAR(Bf16ToFloat(y[i]), exact, 0x1.01p-9 * std::fabs(exact) * 2) << i;
  }
}

TEST(Combine, SumsSlotsInOrderThenAddsTheSharedExpert) {
  Random random(8);
  for (const bool with_shared : {true, false}) {
    const std::vector<std::uint16_t> slots = random.Bf16(3 * 4 * 37);
    const std::vector<float> weights = random.Floats(3 * 4);
    const std::vector<float> shared = random.Floats(3 * 37);
    std::vector<float> y(3 * 37, kNan);
    reference::Combine({.rows = 3,
                        .columns = 37,
                        .slots_per_row = 4,
                        .slots = slots.data(),
                        .weights = weights.data(),
                        .shared = with_shared ? shared.data() : nullptr,
                        .y = y.data()});
    for (std::int64_t row = 0; row < 3; ++row) {
      for (std::int64_t i = 0; i < 37; ++i) {
        float sum = 0.0f;
        for (std::int64_t slot = 0; slot < 4; ++slot) {
          const std::int64_t at = row * 4 + slot;
          sum = std::fma(weights[at], Bf16ToFloat(slots[at * 37 + i]), sum);
        }
        sum = with_shared ? sum + shared[row * 37 + i] : sum;
        ASSERT_EQ(Bits(y[row * 37 + i]), Bits(sum));
      }
    }
  }
}

// Rows there and back; `stride` is that of the codes.
struct QuantizedRows {
  QuantizedRows(std::int64_t row_count, std::int64_t column_count,
                const std::vector<std::uint16_t>& x)
      : rows(row_count),
        columns(column_count),
        codes(rows * stride(), 0xee),
        scales(rows * scales_stride(), -1.0f) {
    reference::QuantizeRows({.rows = rows,
                             .columns = columns,
                             .x = x.data(),
                             .codes = codes.data(),
                             .codes_stride = stride(),
                             .scales = scales.data(),
                             .scales_stride = scales_stride()});
  }

  std::vector<std::uint16_t> Back(const std::vector<std::int32_t>& x_rows) const {
    std::vector<std::uint16_t> y(x_rows.size() * columns, kNanBf16);
    reference::DequantizeRows({.rows = static_cast<std::int64_t>(x_rows.size()),
                               .columns = columns,
                               .codes = codes.data(),
                               .codes_stride = stride(),
                               .scales = scales.data(),
                               .scales_stride = scales_stride(),
                               .x_rows = x_rows.data(),
                               .y = y.data()});
    return y;
  }

  std::int64_t stride() const { return columns + 3; }
  std::int64_t blocks() const { return (columns + kScaleBlock - 1) / kScaleBlock; }
  std::int64_t scales_stride() const { return blocks() + 1; }

  std::int64_t rows;
  std::int64_t columns;
  std::vector<std::uint8_t> codes;
  std::vector<float> scales;
};

TEST(QuantizeRows, IsTheDefinitionAndStaysInItsBuffers) {
  Random random(9);
  for (const std::int64_t columns : {1, 72, 127, 128, 129, 256, 7168}) {
    SCOPED_TRACE(std::to_string(columns));
    const std::vector<std::uint16_t> x = random.Bf16(3 * columns, 4.0f);
    const QuantizedRows quantized(3, columns, x);
    const std::vector<std::uint16_t> y = quantized.Back({2, 0, 1, 2});
    for (const auto& [at, row] : {std::pair(0, 2), {1, 0}, {2, 1}, {3, 2}}) {
      for (std::int64_t i = 0; i < columns; ++i) {
        const std::int64_t block = i / kScaleBlock;
        float largest = 0.0f;
        for (std::int64_t j = block * 128; j < std::min(columns, block * 128 + 128); ++j) {
          largest = std::max(largest, std::fabs(Bf16ToFloat(x[row * columns + j])));
        }
        const float scale = quantized.scales[row * quantized.scales_stride() + block];
        ASSERT_EQ(scale, largest / 448.0f);
        const float value = Bf16ToFloat(x[row * columns + i]);
        const std::uint8_t code = quantized.codes[row * quantized.stride() + i];
        ASSERT_EQ(code, FloatToE4m3(value / scale));
        ASSERT_EQ(y[at * columns + i], FloatToBf16(E4m3ToFloat(code) * scale));
        // Half a last place of e4m3, and the rounding to bf16.
        const float bound = std::max(std::fabs(value) * 0x1.1p-4f, scale * 0x1p-10f);
        ASSERT_NEAR(Bf16ToFloat(y[at * columns + i]), value, bound);
      }
    }
    for (std::int64_t row = 0; row < 3; ++row) {
      for (std::int64_t i = columns; i < quantized.stride(); ++i) {
        ASSERT_EQ(quantized.codes[row * quantized.stride() + i], 0xee);
      }
      ASSERT_EQ(quantized.scales[row * quantized.scales_stride() + quantized.blocks()], -1.0f);
    }
  }
}

TEST(QuantizeRows, KeepsTheLargestValueOfABlock) {
  for (const float largest : {1.0f, 3.0f, 0x1.fep+127f, 0x1p-100f}) {
    std::vector<std::uint16_t> x(128, FloatToBf16(largest / 1024));
    x[77] = FloatToBf16(-largest);
    const QuantizedRows quantized(1, 128, x);
    EXPECT_EQ(quantized.codes[77], 0xfe) << largest;
    EXPECT_EQ(quantized.Back({0})[77], x[77]) << largest;
  }
}

TEST(QuantizeRows, ZerosAndWhatIsTooSmallForAScaleAreZero) {
  for (const float value : {0.0f, 0x1p-126f, 0x1p-119f}) {
    const QuantizedRows quantized(1, 130, std::vector<std::uint16_t>(130, FloatToBf16(value)));
    EXPECT_EQ(quantized.Back({0}), std::vector<std::uint16_t>(130, 0)) << value;
  }
}

// A fault must not become a number on its way: it would be a token.
TEST(QuantizeRows, NanAndInfinityMakeTheirBlockNan) {
  for (const std::uint16_t fault : {kNanBf16, std::uint16_t{0xffc0}, std::uint16_t{0x7f80},
                                    std::uint16_t{0xff80}, std::uint16_t{0x7f81}}) {
    std::vector<std::uint16_t> x(300, FloatToBf16(1.5f));
    x[140] = fault;
    const std::vector<std::uint16_t> y = QuantizedRows(1, 300, x).Back({0});
    for (std::size_t i = 0; i < 300; ++i) {
      EXPECT_EQ(std::isnan(Bf16ToFloat(y[i])), i / 128 == 1) << i;
      if (i / 128 != 1) {
        EXPECT_EQ(y[i], x[i]) << i;
      }
    }
  }
}

}  // namespace
}  // namespace baleen::kernels
