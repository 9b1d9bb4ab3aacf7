// Rows of device memory, from or to places that a table in device memory names. Host side.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace baleen::kernels::cuda {

struct CopyRowsParams {
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
  // [count], or null for row i itself. One of the two is null.
  const std::int32_t* from_rows = nullptr;  // row i comes from row from_rows[i]
  const std::int32_t* to_rows = nullptr;    // row i goes to row to_rows[i], distinct
  std::int64_t count = 0;                   // rows
  std::int64_t row_bytes = 0;
  cudaStream_t stream = nullptr;
};

// Enqueues the copy; what it returns is of the launch.
cudaError_t CopyRows(const CopyRowsParams& params);

}  // namespace baleen::kernels::cuda
