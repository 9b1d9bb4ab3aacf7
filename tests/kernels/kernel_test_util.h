// What the kernel tests share: random data, packed weights, and the definition of the product order
// written out one scalar at a time.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "kernels/include/float_environment.h"
#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"

namespace baleen::kernels {

// The test's thread computes in the stated environment from start to end.
inline const FloatEnvironment kTestEnvironment;

inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr std::uint16_t kNanBf16 = 0x7fc0;

inline std::uint32_t Bits(float value) { return std::bit_cast<std::uint32_t>(value); }

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  float Normal(float deviation = 1.0f) {
    return static_cast<float>(std::normal_distribution<double>()(engine_)) * deviation;
  }
  // Uniform in [0, limit).
  std::uint64_t Below(std::uint64_t limit) { return engine_() % limit; }

  std::vector<float> Floats(std::int64_t count, float deviation = 1.0f) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) {
      value = Normal(deviation);
    }
    return values;
  }
  std::vector<std::uint16_t> Bf16(std::int64_t count, float deviation = 1.0f) {
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    for (std::uint16_t& value : values) {
      value = FloatToBf16(Normal(deviation));
    }
    return values;
  }
  // Any finite e4m3 codes, subnormals and zeros among them.
  std::vector<std::uint8_t> E4m3(std::int64_t count) {
    std::vector<std::uint8_t> values(static_cast<std::size_t>(count));
    for (std::uint8_t& value : values) {
      value = static_cast<std::uint8_t>(Below(127) | (Below(2) << 7));
    }
    return values;
  }

 private:
  std::mt19937_64 engine_;
};

// A tensor as a checkpoint would hold it.
struct Tensor {
  WeightFormat format = WeightFormat::kBf16;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::uint16_t> bf16;
  std::vector<std::uint8_t> fp8;
  std::vector<float> fp32;
  std::vector<float> scales;

  std::int64_t scale_columns() const { return (columns + kScaleBlock - 1) / kScaleBlock; }

  static Tensor Make(WeightFormat format, std::int64_t rows, std::int64_t columns, Random& random) {
    Tensor tensor{.format = format, .rows = rows, .columns = columns};
    switch (format) {
      case WeightFormat::kBf16:
        tensor.bf16 = random.Bf16(rows * columns);
        break;
      case WeightFormat::kF32:
        tensor.fp32 = random.Floats(rows * columns);
        break;
      case WeightFormat::kFp8Block:
        tensor.fp8 = random.E4m3(rows * columns);
        tensor.scales.resize(static_cast<std::size_t>((rows + kScaleBlock - 1) / kScaleBlock *
                                                      tensor.scale_columns()));
        for (float& scale : tensor.scales) {
          scale = 1e-3f * (0.5f + std::fabs(random.Normal()));
        }
        break;
    }
    return tensor;
  }

  WeightSource Source() const {
    return {.format = format,
            .data = format == WeightFormat::kBf16  ? static_cast<const void*>(bf16.data())
                    : format == WeightFormat::kF32 ? static_cast<const void*>(fp32.data())
                                                   : fp8.data(),
            .scales = scales.data(),
            .columns = columns,
            .row_count = rows};
  }

  // The element without its scale, and the scale.
  float Value(std::int64_t row, std::int64_t column) const {
    const auto at = static_cast<std::size_t>(row * columns + column);
    return format == WeightFormat::kBf16  ? Bf16ToFloat(bf16[at])
           : format == WeightFormat::kF32 ? fp32[at]
                                          : E4m3ToFloat(fp8[at]);
  }
  float Scale(std::int64_t row, std::int64_t column) const {
    return scales[static_cast<std::size_t>(row / kScaleBlock * scale_columns() +
                                           column / kScaleBlock)];
  }
};

// A packed weight and the storage it points into. The storage is full of NaN before packing.
class Packed {
 public:
  explicit Packed(const WeightSource& source)
      : storage_(new (std::align_val_t{64}) std::byte[reference::PackedBytes(source) + 64]) {
    std::fill_n(storage_.get(), reference::PackedBytes(source), std::byte{0xff});
    weight_ = reference::Pack(source, storage_.get());
  }
  const PackedWeight* get() const { return &weight_; }

 private:
  struct Release {
    void operator()(std::byte* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], Release> storage_;
  PackedWeight weight_;
};

// docs/arithmetic.md, "GEMM", word for word: one output, its K elements taken by `x(k)`, `w(k)`.
template <typename X, typename W>
float TileSum(std::int64_t begin, std::int64_t end, X x, W w, float sum) {
  for (std::int64_t tile = begin; tile < end; tile += 32) {
    float even = 0.0f;
    float odd = 0.0f;
    for (std::int64_t k = tile; k < tile + 32; ++k) {
      float& chain = (k - tile) % 2 == 0 ? even : odd;
      chain = std::fma(k < end ? x(k) : 0.0f, k < end ? w(k) : 0.0f, chain);
    }
    sum = sum + (even + odd);
  }
  return sum;
}

// Element n of row `x` times the source's weight, by the definition.
template <typename X>
float DefinedProduct(const Tensor& tensor, const WeightSource& source, std::int64_t n, X x) {
  const auto row = [&](std::int64_t k) { return source.row_begin + (source.transposed ? k : n); };
  const auto column = [&](std::int64_t k) { return source.transposed ? n : k; };
  const auto w = [&](std::int64_t k) { return tensor.Value(row(k), column(k)); };
  if (tensor.format != WeightFormat::kFp8Block) {
    return TileSum(0, source.k(), x, w, 0.0f);
  }
  float sum = 0.0f;
  for (std::int64_t begin = 0; begin < source.k();) {
    // A piece ends where the tensor's own index along K crosses a multiple of 128.
    const std::int64_t index = source.transposed ? row(begin) : column(begin);
    const std::int64_t end = std::min(source.k(), begin + kScaleBlock - index % kScaleBlock);
    const float piece = TileSum(begin, end, x, w, 0.0f);
    sum = std::fma(piece, tensor.Scale(row(begin), column(begin)), sum);
    begin = end;
  }
  return sum;
}

// The same in float64, and the sum of magnitudes that bounds its rounding.
struct Exact {
  double value = 0.0;
  double magnitude = 0.0;
};

template <typename X>
Exact ExactProduct(const Tensor& tensor, const WeightSource& source, std::int64_t n, X x) {
  Exact exact;
  for (std::int64_t k = 0; k < source.k(); ++k) {
    const std::int64_t row = source.row_begin + (source.transposed ? k : n);
    const std::int64_t column = source.transposed ? n : k;
    double term = static_cast<double>(x(k)) * tensor.Value(row, column);
    if (tensor.format == WeightFormat::kFp8Block) {
      term *= tensor.Scale(row, column);
    }
    exact.value += term;
    exact.magnitude += std::fabs(term);
  }
  return exact;
}

}  // namespace baleen::kernels
