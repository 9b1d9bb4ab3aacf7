// Matrix products of the reference backend, and its packed weights.
//
// Packed layout: [ceil(n / 32)][k][32] values, bf16 bits (e4m3 decoded, which is exact) or fp32,
// zero where a column is past n; for FP8 then one scale per piece of K and column, [pieces][n
// padded to 32], fp32.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/tile.h"

namespace baleen::kernels::reference {
namespace {

constexpr std::int64_t CeilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t PaddedColumns(const WeightSource& source) {
  return CeilDiv(source.n(), kColumns) * kColumns;
}

// Scale blocks run along the tensor's own rows and columns, so only a transposed weight can start
// inside one.
std::int64_t FirstPiece(const WeightSource& source) {
  const bool inside = source.transposed && source.format == WeightFormat::kFp8Block;
  return kScaleBlock - (inside ? source.row_begin % kScaleBlock : 0);
}

std::int64_t Pieces(std::int64_t k, std::int64_t first_piece) {
  return k <= first_piece ? 1 : 1 + CeilDiv(k - first_piece, kScaleBlock);
}

std::size_t ValueBytes(const WeightSource& source) {
  const std::size_t element = source.format == WeightFormat::kF32 ? 4 : 2;
  return static_cast<std::size_t>(PaddedColumns(source) * source.k()) * element;
}

// The element that column n of y multiplies with element k of x.
template <typename T>
T Element(const WeightSource& source, std::int64_t n, std::int64_t k) {
  const std::int64_t row = source.row_begin + (source.transposed ? k : n);
  const std::int64_t column = source.transposed ? n : k;
  T value;
  std::memcpy(
      &value,
      static_cast<const std::byte*>(source.data) + (row * source.columns + column) * sizeof(T),
      sizeof(T));
  return value;
}

float Scale(const WeightSource& source, std::int64_t n, std::int64_t k) {
  const std::int64_t row = source.row_begin + (source.transposed ? k : n);
  const std::int64_t column = source.transposed ? n : k;
  const std::int64_t index =
      row / kScaleBlock * CeilDiv(source.columns, kScaleBlock) + column / kScaleBlock;
  float value;
  std::memcpy(&value, static_cast<const std::byte*>(source.scales) + index * sizeof(float),
              sizeof(float));
  return value;
}

void PackValues(const WeightSource& source, std::byte* storage) {
  auto* bf16 = reinterpret_cast<std::uint16_t*>(storage);
  auto* fp32 = reinterpret_cast<float*>(storage);
  std::size_t at = 0;
  for (std::int64_t tile = 0; tile < source.n(); tile += kColumns) {
    for (std::int64_t k = 0; k < source.k(); ++k) {
      for (std::int64_t n = tile; n < tile + kColumns; ++n, ++at) {
        const bool inside = n < source.n();
        switch (source.format) {
          case WeightFormat::kBf16:
            bf16[at] = inside ? Element<std::uint16_t>(source, n, k) : 0;
            break;
          case WeightFormat::kFp8Block:
            bf16[at] = inside ? kE4m3ToBf16[Element<std::uint8_t>(source, n, k)] : 0;
            break;
          case WeightFormat::kF32:
            fp32[at] = inside ? Element<float>(source, n, k) : 0.0f;
            break;
        }
      }
    }
  }
}

// Rows of x that share one decoding of the weight.
constexpr std::int64_t kRowsTogether = 16;

struct Piece {
  std::int64_t begin = 0;
  std::int64_t size = 0;
  const float* scales = nullptr;  // of the 32 columns; null: no promotion here
};

// sums += x * one piece of 32 columns.
void AddPiece(const float* x, const float* w, const Piece& piece, float* sums) {
  if (piece.scales == nullptr) {
    AddTiles(x, w, piece.size, sums);
    return;
  }
  float unscaled[kColumns] = {};
  AddTiles(x, w, piece.size, unscaled);
  for (std::int64_t j = 0; j < kColumns; ++j) {
    sums[j] = std::fma(unscaled[j], piece.scales[j], sums[j]);
  }
}

void StoreColumns(const GemmParams& params, std::int64_t row, std::int64_t tile,
                  const float* sums) {
  const std::int64_t columns = std::min(kColumns, params.weight->n - tile);
  const std::int64_t y_row = params.y_rows == nullptr ? row : params.y_rows[row];
  const std::int64_t at = y_row * params.y_stride + tile;
  for (std::int64_t j = 0; j < columns; ++j) {
    if (params.y != nullptr) {
      params.y[at + j] = sums[j];
    } else {
      params.y_bf16[at + j] = FloatToBf16(sums[j]);
    }
  }
}

// Rows [row_begin, row_end) times the 32 columns from `tile`.
void GemmBlock(const GemmParams& params, std::int64_t row_begin, std::int64_t row_end,
               std::int64_t tile) {
  const PackedWeight& weight = *params.weight;
  const auto* values = static_cast<const std::uint16_t*>(weight.values) + tile * weight.k;
  const std::int64_t padded_n = CeilDiv(weight.n, kColumns) * kColumns;
  float sums[kRowsTogether][kColumns] = {};
  float w[kScaleBlock * kColumns];
  float x[kScaleBlock];
  std::int64_t index = 0;
  for (Piece piece{.size = std::min(weight.first_piece, weight.k)}; piece.size > 0; ++index) {
    piece.scales = weight.scales == nullptr ? nullptr : weight.scales + index * padded_n + tile;
    Widen(values + piece.begin * kColumns, piece.size * kColumns, w);
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      const std::int64_t x_row = params.x_rows == nullptr ? row : params.x_rows[row];
      Widen(params.x + x_row * params.x_stride + piece.begin, piece.size, x);
      AddPiece(x, w, piece, sums[row - row_begin]);
    }
    piece.begin += piece.size;
    piece.size = std::min(kScaleBlock, weight.k - piece.begin);
  }
  for (std::int64_t row = row_begin; row < row_end; ++row) {
    StoreColumns(params, row, tile, sums[row - row_begin]);
  }
}

}  // namespace

std::size_t PackedBytes(const WeightSource& source) {
  std::size_t bytes = ValueBytes(source);
  if (source.format == WeightFormat::kFp8Block) {
    bytes +=
        static_cast<std::size_t>(Pieces(source.k(), FirstPiece(source)) * PaddedColumns(source)) *
        sizeof(float);
  }
  return bytes;
}

PackedWeight Pack(const WeightSource& source, std::byte* storage) {
  PackedWeight packed{.format = source.format,
                      .n = source.n(),
                      .k = source.k(),
                      .first_piece = FirstPiece(source),
                      .values = storage};
  PackValues(source, storage);
  if (source.format != WeightFormat::kFp8Block) {
    return packed;
  }
  auto* scales = reinterpret_cast<float*>(storage + ValueBytes(source));
  packed.scales = scales;
  const std::int64_t padded_n = PaddedColumns(source);
  for (std::int64_t k = 0; k < packed.k; k += k == 0 ? packed.first_piece : kScaleBlock) {
    for (std::int64_t n = 0; n < padded_n; ++n) {
      *scales++ = n < packed.n ? Scale(source, n, k) : 0.0f;
    }
  }
  return packed;
}

void Gemm(const GemmParams& params) {
  for (std::int64_t tile = 0; tile < params.weight->n; tile += kColumns) {
    for (std::int64_t row = 0; row < params.m; row += kRowsTogether) {
      GemmBlock(params, row, std::min(row + kRowsTogether, params.m), tile);
    }
  }
}

void GateGemm(const GateGemmParams& params) {
  const PackedWeight& weight = *params.weight;
  for (std::int64_t tile = 0; tile < weight.n; tile += kColumns) {
    const float* w = static_cast<const float*>(weight.values) + tile * weight.k;
    for (std::int64_t row = 0; row < params.m; ++row) {
      float sums[kColumns] = {};
      AddTiles(params.x + row * weight.k, w, weight.k, sums);
      std::copy_n(sums, std::min(kColumns, weight.n - tile), params.y + row * weight.n + tile);
    }
  }
}

}  // namespace baleen::kernels::reference
