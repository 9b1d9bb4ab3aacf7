// Matrix products: equal to the definition bit for bit, near float64, and every row on its own.
#include <cstring>
#include <string>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

struct Shape {
  std::int64_t m;
  std::int64_t n;
  std::int64_t k;
};

// Degenerate ones, tails of every block size, and those of real layers cut to a size that a test
// can afford.
constexpr Shape kShapes[] = {
    {1, 1, 1},      {1, 1, 2},     {3, 2, 31},    {2, 33, 32},   {5, 32, 33},
    {1, 31, 127},   {4, 64, 128},  {2, 65, 129},  {7, 130, 255}, {33, 40, 257},
    {17, 160, 256}, {2, 16, 7168}, {1, 576, 512}, {0, 8, 8},
};

std::vector<float> Multiply(const PackedWeight& weight, const std::vector<std::uint16_t>& x,
                            std::int64_t m) {
  std::vector<float> y(static_cast<std::size_t>(m * weight.n), kNan);
  reference::Gemm({.m = m,
                   .weight = &weight,
                   .x = x.data(),
                   .x_stride = weight.k,
                   .y = y.data(),
                   .y_stride = weight.n});
  return y;
}

void ExpectDefined(const Tensor& tensor, const WeightSource& source, std::int64_t m,
                   Random& random) {
  const Packed packed(source);
  const std::int64_t k_count = source.k();
  const std::vector<std::uint16_t> x = random.Bf16(m * k_count);
  const std::vector<float> y = Multiply(*packed.get(), x, m);
  for (std::int64_t row = 0; row < m; ++row) {
    const auto at = [&](std::int64_t k) { return Bf16ToFloat(x[row * k_count + k]); };
    for (std::int64_t n = 0; n < source.n(); ++n) {
      const float value = y[row * source.n() + n];
      ASSERT_EQ(Bits(value), Bits(DefinedProduct(tensor, source, n, at))) << row << ", " << n;
      const Exact exact = ExactProduct(tensor, source, n, at);
      // Each element passes through at most 16 + 2 additions in its tile, and one for each later
      // tile and scale block.
      const double roundings =
          18.0 + static_cast<double>(k_count) / 32 + static_cast<double>(k_count) / 128;
      ASSERT_NEAR(value, exact.value, roundings * 0x1p-24 * exact.magnitude) << row << ", " << n;
    }
  }
}

TEST(Gemm, IsTheDefinitionForEveryShape) {
  Random random(1);
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8Block}) {
    for (const Shape& shape : kShapes) {
      SCOPED_TRACE(std::to_string(shape.m) + "x" + std::to_string(shape.n) + "x" +
                   std::to_string(shape.k));
      const Tensor tensor = Tensor::Make(format, shape.n, shape.k, random);
      ExpectDefined(tensor, tensor.Source(), shape.m, random);
    }
  }
}

// W_uk and W_uv of one head inside kv_b: row ranges that begin and end inside scale blocks, and the
// transposed product.
TEST(Gemm, IsTheDefinitionForPartsOfATensor) {
  Random random(2);
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8Block}) {
    const Tensor tensor = Tensor::Make(format, 640, 144, random);
    for (const std::int64_t row_begin : {0, 1, 40, 64, 127, 128, 200, 384}) {
      for (const std::int64_t row_count : {1, 24, 64, 128, 256}) {
        for (const bool transposed : {false, true}) {
          SCOPED_TRACE(std::to_string(row_begin) + "+" + std::to_string(row_count) +
                       (transposed ? " transposed" : ""));
          WeightSource source = tensor.Source();
          source.row_begin = row_begin;
          source.row_count = row_count;
          source.transposed = transposed;
          ExpectDefined(tensor, source, 2, random);
        }
      }
    }
  }
}

TEST(Gemm, ReadsUnalignedSources) {
  Random random(3);
  const Tensor tensor = Tensor::Make(WeightFormat::kFp8Block, 48, 160, random);
  std::vector<std::byte> data(tensor.fp8.size() + 1);
  std::vector<std::byte> scales(tensor.scales.size() * 4 + 1);
  std::memcpy(data.data() + 1, tensor.fp8.data(), tensor.fp8.size());
  std::memcpy(scales.data() + 1, tensor.scales.data(), tensor.scales.size() * 4);
  WeightSource source = tensor.Source();
  source.data = data.data() + 1;
  source.scales = scales.data() + 1;
  ExpectDefined(tensor, source, 2, random);
}

TEST(Gemm, RowsDoNotDependOnTheirNumber) {
  Random random(4);
  for (const WeightFormat format : {WeightFormat::kBf16, WeightFormat::kFp8Block}) {
    const Tensor tensor = Tensor::Make(format, 70, 300, random);
    const Packed packed(tensor.Source());
    const std::vector<std::uint16_t> x = random.Bf16(33 * 300);
    const std::vector<float> all = Multiply(*packed.get(), x, 33);
    for (std::int64_t m = 1; m <= 33; ++m) {
      // The last m rows, so that a row also changes its place.
      const std::vector<std::uint16_t> some(x.end() - m * 300, x.end());
      const std::vector<float> y = Multiply(*packed.get(), some, m);
      ASSERT_EQ(std::memcmp(y.data(), all.data() + (33 - m) * 70, y.size() * 4), 0) << m;
    }
  }
}

TEST(Gemm, NanStaysInItsRow) {
  Random random(5);
  const Tensor tensor = Tensor::Make(WeightFormat::kFp8Block, 40, 128, random);
  const Packed packed(tensor.Source());
  std::vector<std::uint16_t> x = random.Bf16(3 * 128);
  const std::vector<float> clean = Multiply(*packed.get(), x, 3);
  x[128 + 5] = kNanBf16;
  const std::vector<float> y = Multiply(*packed.get(), x, 3);
  for (std::int64_t n = 0; n < 40; ++n) {
    EXPECT_EQ(Bits(y[n]), Bits(clean[n]));
    EXPECT_TRUE(std::isnan(y[40 + n]));
    EXPECT_EQ(Bits(y[80 + n]), Bits(clean[80 + n]));
  }
}

TEST(Gemm, NanCodeInAWeightReachesItsColumnOnly) {
  Random random(6);
  Tensor tensor = Tensor::Make(WeightFormat::kFp8Block, 34, 64, random);
  tensor.fp8[33 * 64 + 7] = 0x7f;
  const Packed packed(tensor.Source());
  const std::vector<float> y = Multiply(*packed.get(), random.Bf16(64), 1);
  for (std::int64_t n = 0; n < 34; ++n) {
    EXPECT_EQ(std::isnan(y[n]), n == 33) << n;
  }
}

TEST(Gemm, GathersAndScattersRowsAndRoundsOnRequest) {
  Random random(7);
  const Tensor tensor = Tensor::Make(WeightFormat::kBf16, 35, 40, random);
  const Packed packed(tensor.Source());
  const std::vector<std::uint16_t> x = random.Bf16(6 * 48);
  const std::int32_t x_rows[] = {5, 0, 5};
  const std::int32_t y_rows[] = {1, 4, 2};
  std::vector<std::uint16_t> y(6 * 37, kNanBf16);
  reference::Gemm({.m = 3,
                   .weight = packed.get(),
                   .x = x.data(),
                   .x_stride = 48,
                   .x_rows = x_rows,
                   .y_rows = y_rows,
                   .y_bf16 = y.data(),
                   .y_stride = 37});
  for (std::int64_t row = 0; row < 6; ++row) {
    for (std::int64_t n = 0; n < 37; ++n) {
      const auto* place = std::find(std::begin(y_rows), std::end(y_rows), row);
      std::uint16_t expected = kNanBf16;  // rows and columns of nobody are left alone
      if (place != std::end(y_rows) && n < 35) {
        const std::int32_t source_row = x_rows[place - y_rows];
        expected = FloatToBf16(DefinedProduct(tensor, tensor.Source(), n, [&](std::int64_t k) {
          return Bf16ToFloat(x[source_row * 48 + k]);
        }));
      }
      ASSERT_EQ(y[row * 37 + n], expected) << row << ", " << n;
    }
  }
}

TEST(GateGemm, IsTheDefinition) {
  Random random(8);
  for (const Shape& shape :
       {Shape{3, 16, 256}, Shape{2, 33, 95}, Shape{1, 1, 1}, Shape{1, 256, 64}}) {
    const Tensor tensor = Tensor::Make(WeightFormat::kF32, shape.n, shape.k, random);
    const Packed packed(tensor.Source());
    const std::vector<float> x = random.Floats(shape.m * shape.k);
    std::vector<float> y(shape.m * shape.n, kNan);
    reference::GateGemm({.m = shape.m, .weight = packed.get(), .x = x.data(), .y = y.data()});
    for (std::int64_t row = 0; row < shape.m; ++row) {
      const auto at = [&](std::int64_t k) { return x[row * shape.k + k]; };
      for (std::int64_t n = 0; n < shape.n; ++n) {
        const float value = y[row * shape.n + n];
        ASSERT_EQ(Bits(value), Bits(DefinedProduct(tensor, tensor.Source(), n, at)));
        const Exact exact = ExactProduct(tensor, tensor.Source(), n, at);
        ASSERT_NEAR(value, exact.value, (18.0 + shape.k / 32.0) * 0x1p-24 * exact.magnitude);
      }
    }
  }
}

}  // namespace
}  // namespace baleen::kernels
