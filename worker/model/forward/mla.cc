// Multi-head latent attention.
#include "worker/model/forward/mla.h"

#include <algorithm>

#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep+0;

}  // namespace

absl::StatusOr<Mla> Mla::Make(const ModelConfig& config, Device& device, std::int64_t rows_max) {
  Mla mla;
  mla.ops_ = &device.ops();
  mla.heads_ = config.num_attention_heads;
  mla.nope_dim_ = config.qk_nope_head_dim;
  mla.rope_dim_ = config.qk_rope_head_dim;
  mla.value_dim_ = config.v_head_dim;
  mla.latent_dim_ = config.kv_lora_rank;
  mla.rope_interleave_ = config.rope_interleave;
  mla.score_scale_ = static_cast<float>(static_cast<double>(config.softmax_scale) * kLog2E);
  mla.kv_layout_ = {.layers = config.num_hidden_layers, .row = config.kv_row()};
  BALEEN_ASSIGN_OR_RETURN(mla.rope_table_, MakeRopeTable(config, device));

  const auto rows = static_cast<std::size_t>(rows_max);
  const std::size_t row_heads = rows * config.num_attention_heads;
  const std::size_t split = kernels::kAttentionSplit;
  const auto make = [&device](auto& array, std::size_t count) -> absl::Status {
    auto made = std::remove_reference_t<decltype(array)>::Make(device, count);
    if (made.ok()) {
      array = *std::move(made);
    }
    return made.status();
  };
  BALEEN_RETURN_IF_ERROR(make(mla.query_latent_, rows * config.q_lora_rank));
  BALEEN_RETURN_IF_ERROR(make(mla.query_normed_, rows * config.q_lora_rank));
  BALEEN_RETURN_IF_ERROR(make(mla.queries_, row_heads * config.qk_head_dim()));
  BALEEN_RETURN_IF_ERROR(make(mla.kv_new_, rows * config.kv_row()));
  BALEEN_RETURN_IF_ERROR(make(mla.kv_rows_, rows * config.kv_row()));
  BALEEN_RETURN_IF_ERROR(make(mla.prefill_query_, row_heads * config.qk_head_dim()));
  BALEEN_RETURN_IF_ERROR(make(mla.nope_query_, row_heads * config.qk_nope_head_dim));
  BALEEN_RETURN_IF_ERROR(make(mla.latent_query_, row_heads * config.kv_row()));
  BALEEN_RETURN_IF_ERROR(make(mla.latent_output_, row_heads * config.kv_lora_rank));
  BALEEN_RETURN_IF_ERROR(make(mla.attended_, row_heads * config.v_head_dim));
  BALEEN_RETURN_IF_ERROR(make(mla.split_kv_, split * config.kv_row()));
  BALEEN_RETURN_IF_ERROR(
      make(mla.split_expanded_,
           split * config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)));
  BALEEN_RETURN_IF_ERROR(make(mla.state_max_, row_heads));
  BALEEN_RETURN_IF_ERROR(make(mla.state_sum_, row_heads));
  BALEEN_RETURN_IF_ERROR(make(mla.state_values_, row_heads * config.v_head_dim));
  BALEEN_RETURN_IF_ERROR(
      make(mla.scratch_,
           std::max(kernels::AttentionScratchFloats(config.qk_head_dim(), config.v_head_dim),
                    kernels::AbsorbedScratchFloats(mla.heads_, mla.latent_dim_, mla.rope_dim_))));
  return mla;
}

void Mla::Run(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv,
              const std::uint16_t* x, float* y) {
  MakeQueries(weights, batch.rows(), x);
  WriteKv(weights, batch, kv, x);
  AttendAbsorbed(weights, batch, kv);
  AttendPrefill(weights, batch, kv);
  ops_->gemm({.m = batch.rows(),
              .weight = &weights.output,
              .x = attended_.data(),
              .x_stride = heads_ * value_dim_,
              .y = y,
              .y_stride = weights.output.n});
}

void Mla::MakeQueries(const AttentionWeights& weights, std::int64_t rows, const std::uint16_t* x) {
  const std::int64_t queries = heads_ * (nope_dim_ + rope_dim_);
  if (weights.q_a_norm == nullptr) {
    ops_->gemm({.m = rows,
                .weight = &weights.q,
                .x = x,
                .x_stride = weights.q.k,
                .y = queries_.data(),
                .y_stride = queries});
    return;
  }
  const std::int64_t rank = weights.q_a.n;
  ops_->gemm({.m = rows,
              .weight = &weights.q_a,
              .x = x,
              .x_stride = weights.q_a.k,
              .y = query_latent_.data(),
              .y_stride = rank});
  ops_->rms_norm({.rows = rows,
                  .columns = rank,
                  .x = query_latent_.data(),
                  .x_stride = rank,
                  .weight = weights.q_a_norm,
                  .epsilon = kLatentNormEpsilon,
                  .y_bf16 = query_normed_.data(),
                  .y_bf16_stride = rank});
  ops_->gemm({.m = rows,
              .weight = &weights.q_b,
              .x = query_normed_.data(),
              .x_stride = rank,
              .y = queries_.data(),
              .y_stride = queries});
}

void Mla::WriteKv(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv,
                  const std::uint16_t* x) {
  const std::int64_t row = kv_layout_.row;
  ops_->gemm({.m = batch.rows(),
              .weight = &weights.kv_a,
              .x = x,
              .x_stride = weights.kv_a.k,
              .y = kv_new_.data(),
              .y_stride = row});
  ops_->rms_norm({.rows = batch.rows(),
                  .columns = latent_dim_,
                  .x = kv_new_.data(),
                  .x_stride = row,
                  .weight = weights.kv_a_norm,
                  .epsilon = kLatentNormEpsilon,
                  .y_bf16 = kv_rows_.data(),
                  .y_bf16_stride = row});
  Rotate(batch, 0,
         {.rows = batch.rows(),
          .heads = 1,
          .x = kv_new_.data() + latent_dim_,
          .x_stride = row,
          .y = kv_rows_.data() + latent_dim_,
          .y_stride = row});
  for (const auto* group : {&batch.absorbed, &batch.prefill}) {
    for (const BatchSequence& sequence : *group) {
      ops_->kv_store({.kv = kv_layout_.Of(kv, sequence),
                      .position = sequence.position,
                      .rows = sequence.rows,
                      .contiguous = kv_rows_.data() + sequence.row * row});
    }
  }
}

// Scores are q_nope . (W_uk latent) = (W_uk^T q_nope) . latent, so that queries meet the cache rows
// as they are, and the values are taken through W_uv after they have been summed.
void Mla::AttendAbsorbed(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv) {
  const std::int64_t rows = batch.absorbed_rows;
  const std::int64_t query_dim = nope_dim_ + rope_dim_;
  const std::int64_t row = kv_layout_.row;
  ops_->round({.rows = rows * heads_,
               .columns = nope_dim_,
               .x = queries_.data(),
               .x_stride = query_dim,
               .y = nope_query_.data(),
               .y_stride = nope_dim_});
  for (std::int64_t head = 0; head < heads_; ++head) {
    ops_->gemm({.m = rows,
                .weight = &weights.key_absorb[head],
                .x = nope_query_.data() + head * nope_dim_,
                .x_stride = heads_ * nope_dim_,
                .y_bf16 = latent_query_.data() + head * row,
                .y_stride = heads_ * row});
  }
  Rotate(batch, 0,
         {.rows = rows * heads_,
          .heads = heads_,
          .x = queries_.data() + nope_dim_,
          .x_stride = query_dim,
          .y = latent_query_.data() + latent_dim_,
          .y_stride = row});
  for (const BatchSequence& sequence : batch.absorbed) {
    ops_->absorbed_attention({.rows = sequence.rows,
                              .heads = heads_,
                              .latent_dim = latent_dim_,
                              .rope_dim = rope_dim_,
                              .first_position = sequence.position,
                              .q = latent_query_.data() + sequence.row * heads_ * row,
                              .kv = kv_layout_.Of(kv, sequence),
                              .score_scale = score_scale_,
                              .y = latent_output_.data() + sequence.row * heads_ * latent_dim_,
                              .scratch = scratch_.data()});
  }
  for (std::int64_t head = 0; head < heads_; ++head) {
    ops_->gemm({.m = rows,
                .weight = &weights.value_up[head],
                .x = latent_output_.data() + head * latent_dim_,
                .x_stride = heads_ * latent_dim_,
                .y_bf16 = attended_.data() + head * value_dim_,
                .y_stride = heads_ * value_dim_});
  }
}

void Mla::AttendPrefill(const AttentionWeights& weights, const Batch& batch, const LayerKv& kv) {
  const std::int64_t rows = batch.prefill_rows();
  const std::int64_t query_dim = nope_dim_ + rope_dim_;
  const float* queries = queries_.data() + batch.absorbed_rows * heads_ * query_dim;
  ops_->round({.rows = rows * heads_,
               .columns = nope_dim_,
               .x = queries,
               .x_stride = query_dim,
               .y = prefill_query_.data(),
               .y_stride = query_dim});
  Rotate(batch, batch.absorbed_rows,
         {.rows = rows * heads_,
          .heads = heads_,
          .x = queries + nope_dim_,
          .x_stride = query_dim,
          .y = prefill_query_.data() + nope_dim_,
          .y_stride = query_dim});
  for (BatchSequence sequence : batch.prefill) {
    sequence.row -= batch.absorbed_rows;
    AttendPrefillSequence(weights, sequence, kv_layout_.Of(kv, sequence));
  }
  ops_->finish_attention({.rows = rows,
                          .heads = heads_,
                          .value_dim = value_dim_,
                          .state = {state_max_.data(), state_sum_.data(), state_values_.data()},
                          .y = attended_.data() + batch.absorbed_rows * heads_ * value_dim_});
}

// `sequence.row` counts from the first prefill row. All keys from position 0 on are expanded again
// from the cache, split by split: a prompt that comes in chunks sees the same bits as one that
// comes whole.
void Mla::AttendPrefillSequence(const AttentionWeights& weights, const BatchSequence& sequence,
                                const kernels::PagedKv& kv) {
  const std::int64_t state = sequence.row * heads_;
  for (std::int64_t split = 0; split < sequence.end_position(); split += kernels::kAttentionSplit) {
    const std::int64_t keys = std::min(kernels::kAttentionSplit, sequence.end_position() - split);
    ops_->kv_load({.kv = kv, .position = split, .rows = keys, .contiguous = split_kv_.data()});
    ops_->gemm({.m = keys,
                .weight = &weights.kv_b,
                .x = split_kv_.data(),
                .x_stride = kv.row,
                .y_bf16 = split_expanded_.data(),
                .y_stride = weights.kv_b.n});
    ops_->prefill_attention({.rows = sequence.rows,
                             .heads = heads_,
                             .nope_dim = nope_dim_,
                             .rope_dim = rope_dim_,
                             .value_dim = value_dim_,
                             .first_position = sequence.position,
                             .q = prefill_query_.data() + state * (nope_dim_ + rope_dim_),
                             .split_position = split,
                             .keys = keys,
                             .expanded = split_expanded_.data(),
                             .rope_keys = split_kv_.data() + latent_dim_,
                             .rope_keys_stride = kv.row,
                             .score_scale = score_scale_,
                             .state = {.score_max = state_max_.data() + state,
                                       .weight_sum = state_sum_.data() + state,
                                       .values = state_values_.data() + state * value_dim_},
                             .scratch = scratch_.data()});
  }
}

void Mla::Rotate(const Batch& batch, std::int64_t row, kernels::RopeParams params) const {
  params.pairs = rope_table_.pairs;
  params.interleaved = rope_interleave_;
  params.positions = batch.positions.data() + row;
  params.cosines = rope_table_.cosines.data();
  params.sines = rope_table_.sines.data();
  ops_->rope(params);
}

}  // namespace baleen::worker
