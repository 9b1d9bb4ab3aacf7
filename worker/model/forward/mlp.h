// SwiGLU: y = down(silu(gate(x)) * up(x)).
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/include/ops.h"
#include "worker/device/device.h"
#include "worker/model/weights.h"

namespace baleen::worker {

// Scratch for rows_max rows of an MLP of up to intermediate_max; any number of MLPs may share it,
// one at a time.
class Mlp {
 public:
  // What an MLP reads and writes. Row i reads row x_rows[i] of x and writes row y_rows[i] of y;
  // null = i.
  struct Rows {
    std::int64_t count = 0;
    const std::uint16_t* x = nullptr;  // bf16 [.., hidden]
    const std::int32_t* x_rows = nullptr;
    // One of the two: [.., hidden]
    float* y = nullptr;
    std::uint16_t* y_bf16 = nullptr;
    const std::int32_t* y_rows = nullptr;
  };

  static absl::StatusOr<Mlp> Make(Device& device, std::int64_t rows_max,
                                  std::int64_t intermediate_max);

  // Precondition: rows.count <= rows_max().
  void Run(const MlpWeights& weights, const Rows& rows) const;

  std::int64_t rows_max() const { return rows_max_; }

 private:
  const kernels::OpTable* ops_ = nullptr;
  std::int64_t rows_max_ = 0;
  Array<float> gate_;            // [rows][intermediate]
  Array<float> up_;              // [rows][intermediate]
  Array<std::uint16_t> hidden_;  // bf16 [rows][intermediate]
};

}  // namespace baleen::worker
