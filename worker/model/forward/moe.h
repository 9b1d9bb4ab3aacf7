// The mixture of experts: the gate chooses experts for each token, each expert computes its tokens,
// the outputs are combined.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/model/config.h"
#include "worker/model/forward/mlp.h"
#include "worker/model/weights.h"

namespace baleen::worker {

class Moe {
 public:
  static absl::StatusOr<Moe> Make(const ModelConfig& config, Device& device, std::int64_t rows_max);

  // The normed input, in fp32 for the gate and in bf16 for the experts, and the output.
  struct Rows {
    std::int64_t count = 0;
    const float* x = nullptr;               // [count][hidden]
    const std::uint16_t* x_bf16 = nullptr;  // bf16 [count][hidden]
    float* y = nullptr;                     // [count][hidden]
  };

  void Run(const MoeWeights& weights, const Mlp& mlp, const Rows& rows);

 private:
  void Route(const MoeWeights& weights, std::int64_t rows, const float* x);
  void GroupByExpert(std::int64_t rows);

  const kernels::OpTable* ops_ = nullptr;
  kernels::RouteParams route_;  // everything that does not change from call to call
  std::int64_t hidden_ = 0;
  Array<float> logits_;         // [rows][experts]
  Array<std::int32_t> ids_;     // [rows][slots]
  Array<float> route_weights_;  // [rows][slots]
  Array<std::uint16_t>
      slots_;            // bf16 [rows][slots][hidden]: each expert's output for each of its tokens
  Array<float> shared_;  // [rows][hidden]
  // Expert e computes the entries [expert_begin_[e], expert_begin_[e + 1]): token rows, and where
  // their outputs go.
  std::vector<std::int32_t> expert_begin_;  // [experts + 1]
  Array<std::int32_t> token_rows_;          // [rows * slots]
  Array<std::int32_t> slot_rows_;           // [rows * slots]
};

}  // namespace baleen::worker
