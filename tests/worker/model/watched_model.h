// A model whose choices of experts are recorded, and replaced on request.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "worker/device/reference_device.h"
#include "worker/model/deepseek_model.h"

namespace baleen::worker {

// [MoE layer][position][slot]: the ids of experts.
using Routes = std::vector<std::vector<std::vector<std::int32_t>>>;

// The reference device with two of its ops watched. The op table holds plain functions, so there is
// one of these at a time.
class WatchedDevice final : public Device {
 public:
  WatchedDevice() : base_(MakeReferenceDevice(std::byte{0xff})), ops_(base_->ops()) {
    EXPECT_EQ(watched_, nullptr);
    watched_ = this;
    ops_.route = Route;
    ops_.log_probs = LogProbs;
  }
  ~WatchedDevice() override { watched_ = nullptr; }

  std::string_view name() const override { return "watched"; }
  const kernels::OpTable& ops() const override { return ops_; }
  absl::StatusOr<Buffer> Allocate(std::size_t bytes) override { return base_->Allocate(bytes); }

  // Of a step of one sequence. `told` (null: nothing) is what the layers take; `own` what they
  // would choose.
  void BeginStep(std::size_t position, const Routes* told, Routes* own) {
    position_ = position;
    layer_ = 0;
    told_ = told;
    own_ = own;
  }
  std::size_t layers_seen() const { return layer_; }
  // Of the last sampled row: [vocabulary].
  const std::vector<float>& log_probs() const { return log_probs_; }

 private:
  static void Route(const kernels::RouteParams& params) { watched_->DoRoute(params); }
  static void LogProbs(const kernels::LogProbsParams& params) { watched_->DoLogProbs(params); }

  void DoRoute(const kernels::RouteParams& params) {
    base_->ops().route(params);
    own_->resize(std::max(own_->size(), layer_ + 1));
    for (std::int64_t row = 0; row < params.rows; ++row) {
      const std::int32_t* ids = params.ids + row * params.slots_per_row;
      ASSERT_EQ((*own_)[layer_].size(), position_ + row);
      (*own_)[layer_].emplace_back(ids, ids + params.slots_per_row);
      if (told_ != nullptr) {
        Tell(params, row, told_->at(layer_).at(position_ + row));
      }
    }
    ++layer_;
  }

  // The same op with a bias that makes it choose `experts` in their order: the bias is no part of
  // the weights.
  void Tell(const kernels::RouteParams& params, std::int64_t row,
            const std::vector<std::int32_t>& experts) {
    std::vector<float> bias(params.experts, 0.0f);
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      bias.at(experts[slot]) = 1000.0f * static_cast<float>(experts.size() - slot);
    }
    kernels::RouteParams one = params;
    one.rows = 1;
    one.groups = one.groups_kept = 1;
    one.bias = bias.data();
    one.logits += row * params.experts;
    one.ids += row * params.slots_per_row;
    one.weights += row * params.slots_per_row;
    base_->ops().route(one);
    EXPECT_EQ(std::vector(one.ids, one.ids + params.slots_per_row), experts);
  }

  // Also the whole distribution, beside what was asked for.
  void DoLogProbs(const kernels::LogProbsParams& params) {
    base_->ops().log_probs(params);
    std::vector<std::int32_t> ids(params.vocabulary);
    std::vector<float> values(params.vocabulary);
    kernels::LogProbsParams all = params;
    all.count = params.vocabulary;
    all.top_ids = ids.data();
    all.top_logprobs = values.data();
    base_->ops().log_probs(all);
    log_probs_.assign(params.vocabulary, 0.0f);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      log_probs_[ids[i]] = values[i];
    }
  }

  static inline WatchedDevice* watched_ = nullptr;

  std::unique_ptr<Device> base_;
  kernels::OpTable ops_;
  std::size_t position_ = 0;
  std::size_t layer_ = 0;
  const Routes* told_ = nullptr;
  Routes* own_ = nullptr;
  std::vector<float> log_probs_;
};

// What a sequence does.
struct WatchedRun {
  struct Row {
    SampledToken sampled;
    std::vector<float> log_probs;  // [vocabulary]
  };
  std::vector<Row> rows;  // after the prompt, then after each further token
  Routes experts;         // the model's own choice, also where it was told another
};

// One sequence at a time, with a KV cache of its own.
class WatchedModel {
 public:
  explicit WatchedModel(const std::string& directory) {
    absl::StatusOr<std::unique_ptr<DeepSeekModel>> model =
        DeepSeekModel::Load({.directory = directory}, device_);
    EXPECT_TRUE(model.ok()) << model.status();
    if (!model.ok()) {
      return;
    }
    model_ = *std::move(model);
    storage_ = *device_.Allocate(kBlocks * model_->info().kv_block_bytes);
  }

  bool loaded() const { return model_ != nullptr; }
  const ModelInfo& info() const { return model_->info(); }
  std::size_t moe_layers() const {
    return model_->config().num_hidden_layers - model_->config().first_k_dense_replace;
  }

  // The prompt in prefill form, then token after token in `form`. `told`: the experts to take, null
  // for the model's own choice.
  WatchedRun Run(std::span<const std::int32_t> tokens, std::size_t prompt_tokens,
                 AttentionForm form, const Routes* told, std::int32_t logprobs) {
    WatchedRun run;
    std::size_t begin = 0;
    for (std::size_t end = prompt_tokens; end <= tokens.size(); ++end) {
      // Blocks out of order: a wrong block table would not go unseen.
      static constexpr std::uint32_t kTable[kBlocks] = {2, 0, 3, 1};
      const SampleSpec greedy{.logprobs = logprobs};
      const SequenceStep step{.tokens = tokens.subspan(begin, end - begin),
                              .position = static_cast<std::uint32_t>(begin),
                              .block_table = kTable,
                              .form = begin == 0 ? AttentionForm::kPrefill : form,
                              .sample = &greedy};
      device_.BeginStep(begin, told, &run.experts);
      SampledToken sampled;
      const absl::Status status =
          model_->Step({&step, 1}, {.base = storage_.data(), .blocks = kBlocks}, {}, {&sampled, 1});
      EXPECT_TRUE(status.ok()) << status;
      EXPECT_TRUE(sampled.status.ok()) << sampled.status;
      EXPECT_EQ(device_.layers_seen(), moe_layers());
      run.rows.push_back({std::move(sampled), device_.log_probs()});
      begin = end;
    }
    return run;
  }

  // All tokens as one prompt: what each but the first was worth.
  std::vector<TokenLogprobs> Score(std::span<const std::int32_t> tokens, const Routes* told,
                                   std::uint32_t top) {
    static constexpr std::uint32_t kTable[kBlocks] = {1, 3, 0, 2};
    const SequenceStep step{.tokens = tokens,
                            .block_table = kTable,
                            .followers = tokens.subspan(1),
                            .followers_top = top};
    Routes own;
    device_.BeginStep(0, told, &own);
    SampledToken scored;
    const absl::Status status =
        model_->Step({&step, 1}, {.base = storage_.data(), .blocks = kBlocks}, {}, {&scored, 1});
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(scored.status.ok()) << scored.status;
    return std::move(scored.followers);
  }

 private:
  static constexpr std::uint32_t kBlocks = 4;

  WatchedDevice device_;
  std::unique_ptr<DeepSeekModel> model_;
  Buffer storage_;
};

}  // namespace baleen::worker
