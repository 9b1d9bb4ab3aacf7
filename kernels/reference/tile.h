// The two inner loops that all of the reference's matrix work is made of.
//
// They are built without sanitizers in every preset: with a check at every element nothing would be
// vectorised, and tests of whole models would take a hundred times as long. Their callers are
// checked.
#pragma once

#include <cstdint>

#include "kernels/include/gemm.h"

namespace baleen::kernels::reference {

// Columns computed side by side. Each keeps its own chains, so this is a matter of speed only.
inline constexpr std::int64_t kColumns = 32;

// sums[j] += the sum over k elements of x[i] * w[i][j], tile by tile (docs/arithmetic.md, "GEMM",
// steps 2 to 4). w is [k][kColumns]; it and x are only read, sums is [kColumns] and overlaps
// neither.
void AddTiles(const float* x, const float* w, std::int64_t k, float* sums);

// fp32 of `count` bf16 values.
void Widen(const std::uint16_t* bf16, std::int64_t count, float* fp32);

}  // namespace baleen::kernels::reference
