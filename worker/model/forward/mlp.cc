// SwiGLU: y = down(silu(gate(x)) * up(x)).
#include "worker/model/forward/mlp.h"

#include "observability/base/status_macros.h"

namespace baleen::worker {

absl::StatusOr<Mlp> Mlp::Make(Device& device, std::int64_t rows_max,
                              std::int64_t intermediate_max) {
  const auto count = static_cast<std::size_t>(rows_max * intermediate_max);
  Mlp mlp;
  mlp.ops_ = &device.ops();
  mlp.rows_max_ = rows_max;
  BALEEN_ASSIGN_OR_RETURN(mlp.gate_, Array<float>::Make(device, count));
  BALEEN_ASSIGN_OR_RETURN(mlp.up_, Array<float>::Make(device, count));
  BALEEN_ASSIGN_OR_RETURN(mlp.hidden_, Array<std::uint16_t>::Make(device, count));
  return mlp;
}

void Mlp::Run(const MlpWeights& weights, const Rows& rows) const {
  const std::int64_t hidden = weights.gate.k;
  const std::int64_t intermediate = weights.gate.n;
  ops_->gemm({.m = rows.count,
              .weight = &weights.gate,
              .x = rows.x,
              .x_stride = hidden,
              .x_rows = rows.x_rows,
              .y = gate_.data(),
              .y_stride = intermediate});
  ops_->gemm({.m = rows.count,
              .weight = &weights.up,
              .x = rows.x,
              .x_stride = hidden,
              .x_rows = rows.x_rows,
              .y = up_.data(),
              .y_stride = intermediate});
  ops_->silu_multiply({.count = rows.count * intermediate,
                       .gate = gate_.data(),
                       .up = up_.data(),
                       .y = hidden_.data()});
  ops_->gemm({.m = rows.count,
              .weight = &weights.down,
              .x = hidden_.data(),
              .x_stride = intermediate,
              .y_rows = rows.y_rows,
              .y = rows.y,
              .y_bf16 = rows.y_bf16,
              .y_stride = hidden});
}

}  // namespace baleen::worker
