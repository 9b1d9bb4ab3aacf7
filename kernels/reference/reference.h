// The reference backend: every op in plain C++. It defines the bits; other backends are compared
// with it by equality.
#pragma once

#include "kernels/include/ops.h"

namespace baleen::kernels::reference {

std::size_t PackedBytes(const WeightSource& source);
PackedWeight Pack(const WeightSource& source, std::byte* storage);

void Gemm(const GemmParams& params);
void GateGemm(const GateGemmParams& params);
void Embed(const EmbedParams& params);
void Add(const AddParams& params);
void Round(const RoundParams& params);
void RmsNorm(const RmsNormParams& params);
void Rope(const RopeParams& params);
void KvStore(const KvCopyParams& params);
void KvLoad(const KvCopyParams& params);
void PrefillAttention(const PrefillAttentionParams& params);
void FinishAttention(const FinishAttentionParams& params);
void AbsorbedAttention(const AbsorbedAttentionParams& params);
void SiluMultiply(const SiluMultiplyParams& params);
void Route(const RouteParams& params);
void Combine(const CombineParams& params);
void QuantizeRows(const QuantizeRowsParams& params);
void DequantizeRows(const DequantizeRowsParams& params);
bool AllFinite(const float* values, std::int64_t count);
void AdjustLogits(const AdjustLogitsParams& params);
std::int32_t Sample(const SampleParams& params);
void LogProbs(const LogProbsParams& params);

const OpTable& Ops();

}  // namespace baleen::kernels::reference
