// The mixture of experts.
#include "worker/model/forward/moe.h"

#include <algorithm>

#include "fmt/format.h"
#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

kernels::RouteParams RouteParamsOf(const ModelConfig& config) {
  return {
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
}

}  // namespace

absl::StatusOr<Moe> Moe::Make(const ModelConfig& config, Device& device, const Limits& limits) {
  const auto rows = static_cast<std::size_t>(limits.rows_max);
  const std::size_t hidden = config.hidden_size;
  const std::size_t slots = rows * config.num_experts_per_tok;
  // A row comes to a slot once, and goes to slots_per_row of them.
  const std::size_t entries =
      rows * limits.ranks *
      std::min<std::size_t>(config.num_experts_per_tok, limits.slots_per_rank);
  const bool fp8 = limits.dispatch == DispatchFormat::kFp8;
  Moe moe;
  moe.ops_ = &device.ops();
  moe.limits_ = limits;
  moe.route_ = RouteParamsOf(config);
  moe.hidden_ = config.hidden_size;
  moe.row_ = DispatchRowLayoutOf(config, limits.dispatch);
  moe.counts_.resize(config.n_routed_experts);
  moe.slot_begin_.resize(limits.slots_per_rank + 1);
  if (limits.ranks == 1) moe.local_.resize(slots);
  BALEEN_ASSIGN_OR_RETURN(moe.logits_, Array<float>::Make(device, rows * config.n_routed_experts));
  BALEEN_ASSIGN_OR_RETURN(moe.ids_, Array<std::int32_t>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.route_weights_, Array<float>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.slots_, Array<std::int32_t>::Make(device, slots));
  BALEEN_ASSIGN_OR_RETURN(moe.quantized_,
                          Array<std::byte>::Make(device, fp8 ? rows * moe.row_.row_bytes : 0));
  BALEEN_ASSIGN_OR_RETURN(
      moe.outputs_, Array<std::uint16_t>::Make(device, limits.ranks == 1 ? slots * hidden : 0));
  BALEEN_ASSIGN_OR_RETURN(moe.shared_, Array<float>::Make(device, rows * hidden));
  BALEEN_ASSIGN_OR_RETURN(moe.expert_input_,
                          Array<std::uint16_t>::Make(device, fp8 ? rows * hidden : 0));
  BALEEN_ASSIGN_OR_RETURN(moe.entry_rows_, Array<std::int32_t>::Make(device, entries));
  BALEEN_ASSIGN_OR_RETURN(moe.entry_outputs_, Array<std::int32_t>::Make(device, entries));
  return moe;
}

absl::Status Moe::Start(const Layer& layer, const Lane& lane, ExpertLoad& load) {
  Route(layer, lane, load);
  ChooseSlots(layer.experts.placement(layer.index), lane);
  Quantize(lane);
  if (lane.all_to_all != nullptr) {
    BALEEN_RETURN_IF_ERROR(lane.all_to_all->StartDispatch(
        lane.number, {.count = lane.count,
                      .x = DispatchedRows(lane),
                      .slots = slots_.data() + Entry(lane.first_row)}));
  }
  if (layer.weights.shared.has_value()) {
    layer.mlp.Run(
        *layer.weights.shared,
        {.count = lane.count, .x = lane.x_bf16, .y = shared_.data() + lane.first_row * hidden_});
  }
  return absl::OkStatus();
}

absl::Status Moe::Compute(const Layer& layer, const Lane& lane) {
  if (lane.all_to_all == nullptr) {
    return Run(layer, LocalWork(lane));
  }
  BALEEN_ASSIGN_OR_RETURN(const ArrivedRows arrived, lane.all_to_all->FinishDispatch(lane.number));
  BALEEN_RETURN_IF_ERROR(
      Run(layer, {.x = arrived.x,
                  .entries = arrived.entries,
                  .outputs = reinterpret_cast<std::uint16_t*>(arrived.outputs)}));
  return lane.all_to_all->StartCombine(lane.number);
}

absl::Status Moe::Finish(const Layer& layer, const Lane& lane) {
  const std::uint16_t* outputs = outputs_.data() + Entry(lane.first_row) * hidden_;
  if (lane.all_to_all != nullptr) {
    BALEEN_ASSIGN_OR_RETURN(const std::byte* const home,
                            lane.all_to_all->FinishCombine(lane.number));
    outputs = reinterpret_cast<const std::uint16_t*>(home);
  }
  const bool shared = layer.weights.shared.has_value();
  ops_->combine({.rows = lane.count,
                 .columns = hidden_,
                 .slots_per_row = route_.slots_per_row,
                 .slots = outputs,
                 .weights = route_weights_.data() + Entry(lane.first_row),
                 .shared = shared ? shared_.data() + lane.first_row * hidden_ : nullptr,
                 .y = lane.y});
  return absl::OkStatus();
}

// What the rows look like to their experts: as they are, or in FP8.
const std::byte* Moe::DispatchedRows(const Lane& lane) const {
  return limits_.dispatch == DispatchFormat::kFp8
             ? quantized_.data() + lane.first_row * row_.row_bytes
             : reinterpret_cast<const std::byte*>(lane.x_bf16);
}

void Moe::Route(const Layer& layer, const Lane& lane, ExpertLoad& load) {
  float* const logits = logits_.data() + lane.first_row * route_.experts;
  ops_->gate_gemm({.m = lane.count, .weight = &layer.weights.gate, .x = lane.x, .y = logits});
  kernels::RouteParams route = route_;
  route.rows = lane.count;
  route.bias = layer.weights.correction_bias;
  route.logits = logits;
  route.ids = ids_.data() + Entry(lane.first_row);
  route.weights = route_weights_.data() + Entry(lane.first_row);
  ops_->route(route);

  std::ranges::fill(counts_, 0);
  for (std::int64_t i = 0; i < Entry(lane.count); ++i) {
    ++counts_[route.ids[i]];
  }
  for (std::size_t expert = 0; expert < counts_.size(); ++expert) {
    if (counts_[expert] > 0) {
      load.Add(layer.index, static_cast<std::int32_t>(expert), counts_[expert]);
    }
  }
}

void Moe::ChooseSlots(const LayerPlacement& placement, const Lane& lane) {
  const std::int32_t* ids = ids_.data() + Entry(lane.first_row);
  std::int32_t* slots = slots_.data() + Entry(lane.first_row);
  for (std::int64_t row = 0; row < lane.count; ++row) {
    for (std::int64_t i = Entry(row); i < Entry(row + 1); ++i) {
      const std::span<const std::int32_t> replicas = placement.SlotsOf(ids[i]);
      slots[i] = replicas.size() == 1
                     ? replicas[0]
                     : replicas[ReplicaFor(lane.requests[row], lane.positions[row], ids[i],
                                           static_cast<std::uint32_t>(replicas.size()))];
    }
  }
}

void Moe::Quantize(const Lane& lane) {
  if (limits_.dispatch != DispatchFormat::kFp8) return;
  std::byte* const rows = quantized_.data() + lane.first_row * row_.row_bytes;
  ops_->quantize_rows({.rows = lane.count,
                       .columns = hidden_,
                       .x = lane.x_bf16,
                       .codes = reinterpret_cast<std::uint8_t*>(rows),
                       .codes_stride = row_.row_bytes,
                       .scales = reinterpret_cast<float*>(rows + row_.scales_begin),
                       .scales_stride = row_.row_bytes / std::int64_t{sizeof(float)}});
}

// As if the rows had been to a group of one.
Moe::Work Moe::LocalWork(const Lane& lane) {
  BALEEN_CHECK(limits_.ranks == 1, "a rank that steps alone holds all experts");
  const std::int64_t first = Entry(lane.first_row);
  const std::int64_t count = Entry(lane.count);
  for (std::int64_t i = 0; i < count; ++i) {
    local_[first + i] = {.slot = slots_.data()[first + i],
                         .row = static_cast<std::int32_t>(i / route_.slots_per_row)};
  }
  return {.x = DispatchedRows(lane),
          .entries = std::span(local_).subspan(first, count),
          .outputs = outputs_.data() + first * hidden_};
}

// Groups the entries by slot with a counting sort: those of a slot stay in their order.
absl::Status Moe::Run(const Layer& layer, const Work& work) {
  // A peer that asks twice for one expert and row can do that.
  if (work.entries.size() > entry_rows_.size()) {
    return absl::FailedPreconditionError(
        fmt::format("experts: {} rows have come for the slots of this rank; the ranks may send {}",
                    work.entries.size(), entry_rows_.size()));
  }
  std::ranges::fill(slot_begin_, 0);
  for (const ArrivedEntry& entry : work.entries) {
    BALEEN_CHECK(entry.slot >= 0 && entry.slot < limits_.slots_per_rank, "a slot of this rank");
    ++slot_begin_[entry.slot];
  }
  // Now counts; running sums make them ends, and filling from the back makes ends begins.
  std::int32_t sum = 0;
  for (std::int32_t& entry : slot_begin_) {
    sum += entry;
    entry = sum;
  }
  for (std::size_t i = work.entries.size(); i-- > 0;) {
    const std::int32_t at = --slot_begin_[work.entries[i].slot];
    entry_rows_.data()[at] = work.entries[i].row;
    entry_outputs_.data()[at] = static_cast<std::int32_t>(i);
  }
  for (std::int32_t slot = 0; slot < limits_.slots_per_rank; ++slot) {
    RunExpert(layer, work, slot);
  }
  return absl::OkStatus();
}

// In pieces, where the whole group sends more rows than the scratch holds: rows are independent.
void Moe::RunExpert(const Layer& layer, const Work& work, std::int32_t slot) {
  const std::int32_t end = slot_begin_[slot + 1];
  for (std::int32_t begin = slot_begin_[slot]; begin < end;) {
    const std::int64_t count = std::min<std::int64_t>(end - begin, layer.mlp.rows_max());
    const std::int32_t* const x_rows = entry_rows_.data() + begin;
    Mlp::Rows rows{.count = count,
                   .x = reinterpret_cast<const std::uint16_t*>(work.x),
                   .x_rows = x_rows,
                   .y_bf16 = work.outputs,
                   .y_rows = entry_outputs_.data() + begin};
    if (limits_.dispatch == DispatchFormat::kFp8) {
      ops_->dequantize_rows({.rows = count,
                             .columns = hidden_,
                             .codes = reinterpret_cast<const std::uint8_t*>(work.x),
                             .codes_stride = row_.row_bytes,
                             .scales = reinterpret_cast<const float*>(work.x + row_.scales_begin),
                             .scales_stride = row_.row_bytes / std::int64_t{sizeof(float)},
                             .x_rows = x_rows,
                             .y = expert_input_.data()});
      rows.x = expert_input_.data();
      rows.x_rows = nullptr;
    }
    layer.mlp.Run(layer.experts.At(layer.index, slot), rows);
    begin += static_cast<std::int32_t>(count);
  }
}

}  // namespace baleen::worker
