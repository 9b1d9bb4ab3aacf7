// Weights of GEMMs: as a checkpoint stores them, and as a backend packs them for itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace baleen::kernels {

// Rows and columns of a weight that share one FP8 scale; also the length of K after which FP8 sums
// are promoted.
inline constexpr std::int64_t kScaleBlock = 128;

enum class WeightFormat : std::uint8_t {
  kBf16,
  kFp8Block,  // e4m3 with one fp32 scale per kScaleBlock x kScaleBlock block
  kF32,       // gate and embedding only: never an operand of Gemm
};

// Rows [row_begin, row_begin + row_count) of a tensor [.., columns] in row-major order. Borrowed;
// nothing need be aligned.
struct WeightSource {
  WeightFormat format = WeightFormat::kBf16;
  const void* data = nullptr;    // first element of row 0 of the tensor
  const void* scales = nullptr;  // kFp8Block: fp32 [ceil(rows / 128)][ceil(columns / 128)]
  std::int64_t columns = 0;
  std::int64_t row_begin = 0;
  std::int64_t row_count = 0;
  // false: y = x W^T, so K = columns and N = row_count (every projection of the model).
  // true:  y = x W, so K = row_count and N = columns (absorbing W_uk into the query).
  bool transposed = false;

  std::int64_t n() const { return transposed ? columns : row_count; }
  std::int64_t k() const { return transposed ? row_count : columns; }
};

// A weight in the layout of the backend whose pack function made it; only that backend's ops can
// read it. Borrowed.
struct PackedWeight {
  WeightFormat format = WeightFormat::kBf16;
  std::int64_t n = 0;
  std::int64_t k = 0;
  // kFp8Block: K is cut in pieces that share a scale. The first one has this length (1..128, less
  // than 128 only where a transposed weight starts inside a scale block), the others have 128, the
  // last one what is left.
  std::int64_t first_piece = kScaleBlock;
  const void* values = nullptr;
  const float* scales = nullptr;
};

}  // namespace baleen::kernels
