// The reference backend's op table.
#include "kernels/include/ops.h"

#include "kernels/reference/reference.h"

namespace baleen::kernels::reference {

const OpTable& Ops() {
  static constexpr OpTable kOps = {
      .packed_bytes = PackedBytes,
      .pack = Pack,
      .gemm = Gemm,
      .gate_gemm = GateGemm,
      .embed = Embed,
      .add = Add,
      .round = Round,
      .rms_norm = RmsNorm,
      .rope = Rope,
      .kv_store = KvStore,
      .kv_load = KvLoad,
      .prefill_attention = PrefillAttention,
      .finish_attention = FinishAttention,
      .absorbed_attention = AbsorbedAttention,
      .silu_multiply = SiluMultiply,
      .route = Route,
      .combine = Combine,
      .quantize_rows = QuantizeRows,
      .dequantize_rows = DequantizeRows,
      .all_finite = AllFinite,
      .adjust_logits = AdjustLogits,
      .sample = Sample,
      .log_probs = LogProbs,
  };
  return kOps;
}

}  // namespace baleen::kernels::reference
