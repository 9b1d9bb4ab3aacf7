// Binding of weights: a checkpoint that does not hold what its config says fails at load, by the
// name of the tensor.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/model/model_test_util.h"

namespace baleen::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kFp8[] = "tests/golden/v3_fp8_mtp";
constexpr char kBf16[] = "tests/golden/v3_q_lora";

std::string LoadError(const std::string& directory) {
  const std::unique_ptr<Device> device = MakeReferenceDevice();
  const auto model = DeepSeekModel::Load({.directory = directory}, *device);
  return model.ok() ? "" : std::string(model.status().message());
}

TEST(Weights, TheUntouchedCheckpointsLoad) {
  EXPECT_EQ(LoadError(kFp8), "");
  EXPECT_EQ(LoadError(kBf16), "");
}

TEST(Weights, AMissingTensorIsNamed) {
  for (const std::string name :
       {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight",
        "model.layers.0.input_layernorm.weight", "model.layers.1.post_attention_layernorm.weight",
        "model.layers.0.self_attn.q_a_proj.weight", "model.layers.0.self_attn.q_a_layernorm.weight",
        "model.layers.0.self_attn.q_b_proj.weight",
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
        "model.layers.1.self_attn.kv_a_layernorm.weight",
        "model.layers.1.self_attn.kv_b_proj.weight", "model.layers.1.self_attn.o_proj.weight",
        "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.e_score_correction_bias",
        "model.layers.1.mlp.experts.3.down_proj.weight",
        "model.layers.1.mlp.shared_experts.gate_proj.weight",
        "model.layers.1.mlp.experts.2.up_proj.weight_scale_inv"}) {
    CheckpointCopy copy(kFp8);
    std::string other = name;
    other.back() = 'X';
    copy.ReplaceInHeader('"' + name + '"', '"' + other + '"');
    EXPECT_THAT(LoadError(copy.path()), HasSubstr(name)) << name;
  }
}

// Whichever rank would have read it: else a group would start and fail when experts move.
TEST(Weights, EveryRankChecksTheExpertsOfAll) {
  CheckpointCopy copy(kFp8);
  copy.ReplaceInHeader("model.layers.1.mlp.experts.3.down_proj.weight\"",
                       "model.layers.1.mlp.experts.3.down_proj.weighX\"");
  const auto directory = ModelDirectory::Open({.directory = copy.path()}).value();
  const ModelPlacement placement =
      ContiguousModelPlacement(directory->config(), PlacementShapeOf(directory->config(), 2));
  const std::unique_ptr<Device> device = MakeReferenceDevice();
  for (const std::int32_t rank : {0, 1}) {
    const auto model = DeepSeekModel::Load(
        {.directory = copy.path(), .shard = ExpertShard{rank, placement}}, *device);
    EXPECT_THAT(model.status().ToString(), HasSubstr("experts.3.down_proj.weight")) << rank;
  }
}

TEST(Weights, TensorsOfAnAnnouncedPredictionLayerAreChecked) {
  for (const std::string name :
       {"model.layers.2.enorm.weight", "model.layers.2.hnorm.weight",
        "model.layers.2.shared_head.norm.weight", "model.layers.2.self_attn.o_proj.weight",
        "model.layers.2.mlp.experts.0.up_proj.weight_scale_inv"}) {
    CheckpointCopy copy(kFp8);
    std::string other = name;
    other.back() = 'X';
    copy.ReplaceInHeader('"' + name + '"', '"' + other + '"');
    EXPECT_THAT(LoadError(copy.path()), HasSubstr(name)) << name;
  }
}

// transformers writes num_nextn_predict_layers even where it writes no such layer.
TEST(Weights, AnAnnouncedPredictionLayerMayBeAbsent) {
  CheckpointCopy copy(kBf16);
  copy.ReplaceInConfig("\"num_nextn_predict_layers\": 1", "\"num_nextn_predict_layers\": 2");
  EXPECT_EQ(LoadError(copy.path()), "");
}

TEST(Weights, AnotherShapeThanTheConfigSaysIsNamed) {
  CheckpointCopy copy(kFp8);
  copy.ReplaceInConfig("\"moe_intermediate_size\": 20", "\"moe_intermediate_size\": 24");
  EXPECT_THAT(LoadError(copy.path()),
              AllOf(HasSubstr("experts.gate_proj.weight"), HasSubstr("24"), HasSubstr("20")));
}

TEST(Weights, WhatTheConfigHasNoPlaceForIsNamed) {
  CheckpointCopy fewer_layers(kBf16);
  fewer_layers.ReplaceInConfig("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
  EXPECT_THAT(LoadError(fewer_layers.path()),
              AllOf(HasSubstr("model.layers.1."), HasSubstr("num_hidden_layers 1")));

  CheckpointCopy no_shared_expert(kBf16);
  no_shared_expert.ReplaceInConfig("\"n_shared_experts\": 1", "\"n_shared_experts\": 0");
  EXPECT_THAT(LoadError(no_shared_expert.path()),
              AllOf(HasSubstr("shared_experts"), HasSubstr("no place")));

  CheckpointCopy one_layer_less(kBf16);  // the last one is not taken for a prediction layer
  one_layer_less.ReplaceInConfig("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
  EXPECT_THAT(LoadError(one_layer_less.path()),
              AllOf(HasSubstr("model.layers.2."), HasSubstr("num_hidden_layers 2")));
}

TEST(Weights, AnotherDtypeIsNamed) {
  CheckpointCopy copy(kBf16);
  copy.ReplaceInHeader("\"model.norm.weight\":{\"dtype\":\"BF16\"",
                       "\"model.norm.weight\":{\"dtype\":\"I16\" ");
  EXPECT_THAT(LoadError(copy.path()), AllOf(HasSubstr("model.norm.weight"), HasSubstr("I16")));
}

TEST(Weights, Fp8WithoutAQuantizationConfigIsRefused) {
  CheckpointCopy copy(kFp8);
  copy.ReplaceInConfig("\"quantization_config\"", "\"quantization_ignored\"");
  EXPECT_THAT(LoadError(copy.path()),
              AllOf(HasSubstr("F8_E4M3"), HasSubstr("quantization_config")));
}

// The same numbers in fp16 and bf16 are the same model: halves with few digits are exact in both.
TEST(TensorBinder, ReadsFloat16) {
  CheckpointCopy copy("tests/golden/v3_dense");
  copy.ReplaceInHeader("\"model.norm.weight\":{\"dtype\":\"BF16\"",
                       "\"model.norm.weight\":{\"dtype\":\"F16\" ");
  const std::vector<std::uint8_t> pair_bf16 = {0x80, 0x3f};  // 1.0
  const std::vector<std::uint8_t> pair_f16 = {0x00, 0x3c};
  CheckpointCopy plain("tests/golden/v3_dense");
  for (std::size_t i = 0; i < 64; ++i) {
    copy.Patch("model.norm.weight", 2 * i, pair_f16);
    plain.Patch("model.norm.weight", 2 * i, pair_bf16);
  }
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  const std::vector<std::uint32_t> table = {0};
  const SampleSpec spec{.logprobs = 20};
  const SequenceStep step{.tokens = prompt, .block_table = table, .sample = &spec};
  EXPECT_EQ(LoadedModel(copy.path()).Step({&step, 1})[0].top,
            LoadedModel(plain.path()).Step({&step, 1})[0].top);
}

}  // namespace
}  // namespace baleen::worker
