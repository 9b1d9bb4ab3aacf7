// A block takes a row at a time, in the widest words that its addresses allow.
#include "kernels/cuda/copy_rows.h"

#include <algorithm>

namespace baleen::kernels::cuda {
namespace {

// Enough blocks to fill a GPU of 132 multiprocessors with several each.
constexpr std::int64_t kBlocksMax = 132 * 8;
constexpr int kThreads = 256;

template <typename Word>
__global__ void __launch_bounds__(kThreads) CopyRowsKernel(const CopyRowsParams p) {
  const std::int64_t words = p.row_bytes / sizeof(Word);
  for (std::int64_t i = blockIdx.x; i < p.count; i += gridDim.x) {
    const std::int64_t from_row = p.from_rows != nullptr ? p.from_rows[i] : i;
    const std::int64_t to_row = p.to_rows != nullptr ? p.to_rows[i] : i;
    const Word* from = reinterpret_cast<const Word*>(p.from + from_row * p.row_bytes);
    Word* to = reinterpret_cast<Word*>(p.to + to_row * p.row_bytes);
    for (std::int64_t word = threadIdx.x; word < words; word += kThreads) to[word] = from[word];
  }
}

template <typename Word>
bool Divides(const CopyRowsParams& p) {
  return p.row_bytes % sizeof(Word) == 0 &&
         reinterpret_cast<std::uintptr_t>(p.from) % sizeof(Word) == 0 &&
         reinterpret_cast<std::uintptr_t>(p.to) % sizeof(Word) == 0;
}

template <typename Word>
cudaError_t Launch(const CopyRowsParams& p) {
  const auto blocks = static_cast<unsigned>(std::min(p.count, kBlocksMax));
  CopyRowsKernel<Word><<<blocks, kThreads, 0, p.stream>>>(p);
  return cudaGetLastError();
}

}  // namespace

cudaError_t CopyRows(const CopyRowsParams& params) {
  if (params.count == 0) return cudaSuccess;
  if (Divides<uint4>(params)) return Launch<uint4>(params);
  if (Divides<std::uint32_t>(params)) return Launch<std::uint32_t>(params);
  return Launch<std::byte>(params);
}

}  // namespace baleen::kernels::cuda
