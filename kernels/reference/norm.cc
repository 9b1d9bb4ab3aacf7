// RMSNorm of the reference backend.
#include <cmath>

#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/row_sum.h"

namespace baleen::kernels::reference {

void RmsNorm(const RmsNormParams& params) {
  for (std::int64_t row = 0; row < params.rows; ++row) {
    const float* x = params.x + row * params.x_stride;
    float chains[kLanes] = {};
    for (std::int64_t i = 0; i < params.columns; ++i) {
      chains[i % kLanes] = std::fma(x[i], x[i], chains[i % kLanes]);
    }
    const float mean = FoldLanes(chains) / static_cast<float>(params.columns);
    const float factor = 1.0f / std::sqrt(mean + params.epsilon);
    for (std::int64_t i = 0; i < params.columns; ++i) {
      const float y = x[i] * factor * params.weight[i];
      if (params.y != nullptr) {
        params.y[row * params.columns + i] = y;
      }
      if (params.y_bf16 != nullptr) {
        params.y_bf16[row * params.y_bf16_stride + i] = FloatToBf16(y);
      }
    }
  }
}

}  // namespace baleen::kernels::reference
