// The op table: what a backend has to provide.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/include/attention.h"
#include "kernels/include/elementwise.h"
#include "kernels/include/gemm.h"
#include "kernels/include/norm.h"
#include "kernels/include/quantize.h"
#include "kernels/include/rope.h"
#include "kernels/include/route.h"
#include "kernels/include/sample.h"
#include "kernels/include/weight.h"

namespace baleen::kernels {

// Version of docs/arithmetic.md that every backend of this table computes, to the bit.
inline constexpr const char* kArithmeticVersion = "baleen-bf16-1";

// Every op is a pure function of its Params: it reads and writes only what they point to, and needs
// a FloatEnvironment on the calling thread. Buffers that it writes do not overlap those it reads
// unless the Params say so. All pointers are aligned to their element.
struct OpTable {
  // Bytes that `pack` needs for a weight; `storage` is aligned to 64 and must outlive the result.
  std::size_t (*packed_bytes)(const WeightSource&) = nullptr;
  PackedWeight (*pack)(const WeightSource&, std::byte* storage) = nullptr;

  void (*gemm)(const GemmParams&) = nullptr;
  void (*gate_gemm)(const GateGemmParams&) = nullptr;
  void (*embed)(const EmbedParams&) = nullptr;
  void (*add)(const AddParams&) = nullptr;
  void (*round)(const RoundParams&) = nullptr;
  void (*rms_norm)(const RmsNormParams&) = nullptr;
  void (*rope)(const RopeParams&) = nullptr;
  void (*kv_store)(const KvCopyParams&) = nullptr;
  void (*kv_load)(const KvCopyParams&) = nullptr;
  void (*prefill_attention)(const PrefillAttentionParams&) = nullptr;
  void (*finish_attention)(const FinishAttentionParams&) = nullptr;
  void (*absorbed_attention)(const AbsorbedAttentionParams&) = nullptr;
  void (*silu_multiply)(const SiluMultiplyParams&) = nullptr;
  void (*route)(const RouteParams&) = nullptr;
  void (*combine)(const CombineParams&) = nullptr;
  void (*quantize_rows)(const QuantizeRowsParams&) = nullptr;
  void (*dequantize_rows)(const DequantizeRowsParams&) = nullptr;
  bool (*all_finite)(const float* values, std::int64_t count) = nullptr;
  void (*adjust_logits)(const AdjustLogitsParams&) = nullptr;
  std::int32_t (*sample)(const SampleParams&) = nullptr;
  void (*log_probs)(const LogProbsParams&) = nullptr;
};

}  // namespace baleen::kernels
