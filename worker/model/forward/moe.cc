// The mixture of experts.
#include "worker/model/forward/moe.h"

#include <algorithm>

#include "observability/base/status_macros.h"

namespace baleen::worker {

absl::StatusOr<Moe> Moe::Make(const ModelConfig& config, Device& device, std::int64_t rows_max) {
  const auto rows = static_cast<std::size_t>(rows_max);
  const std::size_t slots = rows * config.num_experts_per_tok;
  Moe moe;
  moe.ops_ = &device.ops();
  moe.hidden_ = config.hidden_size;
  moe.route_ = {
      .experts = config.n_routed_experts,
      .slots_per_row = config.num_experts_per_tok,
      .groups = config.n_group,
      .groups_kept = config.topk_group,
      .score = config.scoring_func == ScoringFunction::kSigmoid ? kernels::ExpertScore::kSigmoid
                                                                : kernels::ExpertScore::kSoftmax,
      .group_score = config.topk_method == TopkMethod::kNoauxTc ? kernels::GroupScore::kTopTwoSum
                                                                : kernels::GroupScore::kMax,
      .normalise = config.norm_topk_prob,
      .scale = config.routed_scaling_factor};
  moe.expert_begin_.resize(config.n_routed_experts + 1);
  BALEEN_ASSIGN_OR_RETURN(moe.logits_, Array<float>::Make(device, rows * config.n_routed_experts));
  BALEEN_ASSIGN_OR_RETURN(moe.ids_, Array<std::int32_t>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.route_weights_, Array<float>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.slots_,
                          Array<std::uint16_t>::Make(device, slots * config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(moe.shared_, Array<float>::Make(device, rows * config.hidden_size));
  BALEEN_ASSIGN_OR_RETURN(moe.token_rows_, Array<std::int32_t>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.slot_rows_, Array<std::int32_t>::Make(device, slots));
  return moe;
}

void Moe::Route(const MoeWeights& weights, std::int64_t rows, const float* x) {
  ops_->gate_gemm({.m = rows, .weight = &weights.gate, .x = x, .y = logits_.data()});
  kernels::RouteParams route = route_;
  route.rows = rows;
  route.bias = weights.correction_bias;
  route.logits = logits_.data();
  route.ids = ids_.data();
  route.weights = route_weights_.data();
  ops_->route(route);
}

// A counting sort: the entries of an expert are in the order of their tokens.
void Moe::GroupByExpert(std::int64_t rows) {
  const std::int64_t entries = rows * route_.slots_per_row;
  std::fill(expert_begin_.begin(), expert_begin_.end(), 0);
  for (std::int64_t i = 0; i < entries; ++i) {
    ++expert_begin_[ids_.data()[i]];
  }
  // Now counts; running sums from the back make them ends, and filling from the back makes ends
  // begins.
  std::int32_t sum = 0;
  for (std::int32_t& entry : expert_begin_) {
    sum += entry;
    entry = sum;
  }
  for (std::int64_t i = entries - 1; i >= 0; --i) {
    const std::int32_t at = --expert_begin_[ids_.data()[i]];
    token_rows_.data()[at] = static_cast<std::int32_t>(i / route_.slots_per_row);
    slot_rows_.data()[at] = static_cast<std::int32_t>(i);
  }
}

void Moe::Run(const MoeWeights& weights, const Mlp& mlp, const Rows& rows) {
  Route(weights, rows.count, rows.x);
  GroupByExpert(rows.count);
  for (std::size_t expert = 0; expert < weights.experts.size(); ++expert) {
    const std::int32_t begin = expert_begin_[expert];
    const std::int32_t end = expert_begin_[expert + 1];
    if (begin < end) {
      mlp.Run(weights.experts[expert], {.count = end - begin,
                                        .x = rows.x_bf16,
                                        .x_rows = token_rows_.data() + begin,
                                        .y_bf16 = slots_.data(),
                                        .y_rows = slot_rows_.data() + begin});
    }
  }
  if (weights.shared.has_value()) {
    mlp.Run(*weights.shared, {.count = rows.count, .x = rows.x_bf16, .y = shared_.data()});
  }
  ops_->combine({.rows = rows.count,
                 .columns = hidden_,
                 .slots_per_row = route_.slots_per_row,
                 .slots = slots_.data(),
                 .weights = route_weights_.data(),
                 .shared = weights.shared.has_value() ? shared_.data() : nullptr,
                 .y = rows.y});
}

}  // namespace baleen::worker
