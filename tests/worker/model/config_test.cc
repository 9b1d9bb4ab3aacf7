// config.json: the served families read as transformers reads them, everything else refused with
// field, value and limit.
#include "worker/model/config.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace baleen::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

// DeepSeek-R1's own config.json, in the layout of transformers 4.
Json R1() {
  return Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1, "first_k_dense_replace": 3,
    "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
    "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
    "model_type": "deepseek_v3", "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8,
    "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61,
    "num_key_value_heads": 128, "num_nextn_predict_layers": 1, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0,
                     "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096,
                     "type": "yarn"},
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "tie_word_embeddings": false, "topk_group": 4, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "transformers_version": "4.46.3", "use_cache": true,
    "v_head_dim": 128, "vocab_size": 129280})");
}

Json V2Lite() {
  return Json::parse(R"({
    "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944,
    "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16,
    "num_key_value_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
    "routed_scaling_factor": 1.0, "kv_lora_rank": 512, "q_lora_rank": null,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "qk_nope_head_dim": 128, "topk_method": "greedy",
    "n_group": 1, "topk_group": 1, "num_experts_per_tok": 6, "moe_layer_freq": 1,
    "first_k_dense_replace": 1, "norm_topk_prob": false, "scoring_func": "softmax",
    "hidden_act": "silu", "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
    "bos_token_id": 100000, "eos_token_id": 100001, "vocab_size": 102400, "rope_theta": 10000,
    "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 0.707,
                     "mscale_all_dim": 0.707, "original_max_position_embeddings": 4096,
                     "type": "yarn"}})");
}

absl::StatusOr<ModelConfig> Parse(const Json& json) { return ParseModelConfig(json.dump()); }

// `base` with the fields of `patch`; "DELETE" removes a field (null stays null).
Json Patched(Json base, const Json& patch) {
  for (const auto& [name, value] : patch.items()) {
    if (value == "DELETE") {
      base.erase(name);
    } else if (value.is_object() && base.contains(name) && base[name].is_object()) {
      base[name] = Patched(base[name], value);
    } else {
      base[name] = value;
    }
  }
  return base;
}

TEST(ModelConfig, ReadsDeepseekR1) {
  const absl::StatusOr<ModelConfig> config = Parse(R1());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, ModelFamily::kDeepseekV3);
  EXPECT_EQ(config->vocab_size, 129280u);
  EXPECT_EQ(config->hidden_size, 7168u);
  EXPECT_EQ(config->intermediate_size, 18432u);
  EXPECT_EQ(config->moe_intermediate_size, 2048u);
  EXPECT_EQ(config->num_hidden_layers, 61u);
  EXPECT_EQ(config->num_attention_heads, 128u);
  EXPECT_EQ(config->max_position_embeddings, 163840u);
  EXPECT_EQ(config->rms_norm_eps, 1e-6f);
  EXPECT_FALSE(config->tie_word_embeddings);
  EXPECT_EQ(config->num_nextn_predict_layers, 1u);
  EXPECT_EQ(config->q_lora_rank, 1536u);
  EXPECT_EQ(config->kv_lora_rank, 512u);
  EXPECT_EQ(config->qk_head_dim(), 192u);
  EXPECT_EQ(config->kv_row(), 576u);
  EXPECT_EQ(config->v_head_dim, 128u);
  EXPECT_TRUE(config->rope_interleave);
  EXPECT_EQ(config->first_k_dense_replace, 3u);
  EXPECT_TRUE(config->is_dense(2));
  EXPECT_FALSE(config->is_dense(3));
  EXPECT_EQ(config->n_routed_experts, 256u);
  EXPECT_EQ(config->experts_per_group(), 32u);
  EXPECT_EQ(config->topk_group, 4u);
  EXPECT_EQ(config->num_experts_per_tok, 8u);
  EXPECT_EQ(config->n_shared_experts, 1u);
  EXPECT_EQ(config->scoring_func, ScoringFunction::kSigmoid);
  EXPECT_EQ(config->topk_method, TopkMethod::kNoauxTc);
  EXPECT_TRUE(config->norm_topk_prob);
  EXPECT_EQ(config->routed_scaling_factor, 2.5f);
  EXPECT_TRUE(config->fp8_weights);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(1));
}

TEST(ModelConfig, ReadsDeepseekV2Lite) {
  const absl::StatusOr<ModelConfig> config = Parse(V2Lite());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, ModelFamily::kDeepseekV2);
  EXPECT_EQ(config->q_lora_rank, 0u);
  EXPECT_EQ(config->scoring_func, ScoringFunction::kSoftmax);
  EXPECT_EQ(config->topk_method, TopkMethod::kGreedy);
  EXPECT_FALSE(config->norm_topk_prob);
  EXPECT_EQ(config->n_shared_experts, 2u);
  EXPECT_EQ(config->n_group, 1u);
  EXPECT_FALSE(config->fp8_weights);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(100001));
}

TEST(ModelConfig, ReadsMoonlightAndKimiK2) {
  const Json moonlight = Patched(
      R1(), Json::parse(R"({"vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264,
        "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16,
        "num_key_value_heads": 16, "n_shared_experts": 2, "n_routed_experts": 64,
        "routed_scaling_factor": 2.446, "q_lora_rank": null, "n_group": 1, "topk_group": 1,
        "num_experts_per_tok": 6, "first_k_dense_replace": 1, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "rope_scaling": null,
        "num_nextn_predict_layers": 0, "quantization_config": "DELETE", "eos_token_id": 163585})"));
  const absl::StatusOr<ModelConfig> small = Parse(moonlight);
  ASSERT_TRUE(small.ok()) << small.status();
  EXPECT_EQ(small->experts_per_group(), 64u);
  EXPECT_EQ(small->rms_norm_eps, 1e-5f);
  EXPECT_FLOAT_EQ(small->rope_inverse_frequencies[31], 1.0f / std::pow(50000.0f, 62.0f / 64.0f));

  const Json kimi = Patched(
      R1(),
      Json::parse(R"({"model_type": "kimi_k2", "vocab_size": 163840, "num_attention_heads": 64,
        "num_key_value_heads": 64, "n_routed_experts": 384, "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1, "routed_scaling_factor": 2.827, "rope_theta": 50000.0,
        "max_position_embeddings": 131072, "num_nextn_predict_layers": 0, "eos_token_id": 163585,
        "rope_scaling": {"beta_fast": 1.0, "factor": 32.0}})"));
  const absl::StatusOr<ModelConfig> large = Parse(kimi);
  ASSERT_TRUE(large.ok()) << large.status();
  EXPECT_EQ(large->family, ModelFamily::kDeepseekV3);
  EXPECT_EQ(large->n_routed_experts, 384u);
}

// What save_pretrained of transformers 5.23 writes: rope_parameters and dtype, no scoring_func and
// no topk_method.
TEST(ModelConfig, ReadsTransformers5Layout) {
  const Json v3 = Json::parse(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 0, "dtype": "float32", "eos_token_id": 1, "first_k_dense_replace": 1,
    "head_dim": 16, "hidden_act": "silu", "hidden_size": 64, "initializer_range": 0.02,
    "intermediate_size": 96, "kv_lora_rank": 32, "max_position_embeddings": 4096,
    "model_type": "deepseek_v3", "moe_intermediate_size": 32, "n_group": 2, "n_routed_experts": 8,
    "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 2,
    "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 2,
    "num_nextn_predict_layers": 1, "output_router_logits": false, "pad_token_id": null,
    "pretraining_tp": 1, "q_lora_rank": null, "qk_head_dim": 40, "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16, "rms_norm_eps": 1e-06, "rope_interleave": true,
    "rope_parameters": {"factor": 4, "mscale": 1.0, "mscale_all_dim": 1.0,
                        "original_max_position_embeddings": 512, "rope_theta": 50000.0,
                        "rope_type": "yarn", "type": "yarn"},
    "routed_scaling_factor": 2.5, "tie_word_embeddings": true, "topk_group": 1,
    "transformers_version": "5.23.0", "use_cache": true, "v_head_dim": 24, "vocab_size": 300})");
  const absl::StatusOr<ModelConfig> config = Parse(v3);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->tie_word_embeddings);
  EXPECT_EQ(config->q_lora_rank, 0u);
  EXPECT_NEAR(config->softmax_scale, 0.158113883 * 1.138629436 * 1.138629436, 1e-7);

  Json old = v3;
  old["rope_scaling"] = old["rope_parameters"];
  old["rope_scaling"].erase("rope_theta");
  old["rope_scaling"].erase("rope_type");
  old.erase("rope_parameters");
  old["rope_theta"] = 50000.0;
  const absl::StatusOr<ModelConfig> same = Parse(old);
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->rope_inverse_frequencies, config->rope_inverse_frequencies);
  EXPECT_EQ(same->softmax_scale, config->softmax_scale);
}

TEST(ModelConfig, MissingFieldsTakeTheDefaultsOfTransformers) {
  const absl::StatusOr<ModelConfig> v3 = Parse({{"model_type", "deepseek_v3"}});
  ASSERT_TRUE(v3.ok()) << v3.status();
  EXPECT_EQ(v3->hidden_size, 7168u);
  EXPECT_EQ(v3->num_hidden_layers, 61u);
  EXPECT_EQ(v3->q_lora_rank, 1536u);
  EXPECT_EQ(v3->n_group, 8u);
  EXPECT_EQ(v3->max_position_embeddings, 4096u);
  EXPECT_TRUE(v3->norm_topk_prob);
  EXPECT_EQ(v3->routed_scaling_factor, 2.5f);
  EXPECT_THAT(v3->eos_token_ids, ElementsAre(1));
  EXPECT_FLOAT_EQ(v3->rope_inverse_frequencies[1], 0.749894202f);
  EXPECT_EQ(v3->rope_attention_factor, 1.0f);

  const absl::StatusOr<ModelConfig> v2 =
      Parse({{"model_type", "deepseek_v2"}, {"num_experts_per_tok", 6}});
  ASSERT_TRUE(v2.ok()) << v2.status();
  EXPECT_EQ(v2->hidden_size, 4096u);
  EXPECT_EQ(v2->first_k_dense_replace, 0u);
  EXPECT_EQ(v2->n_shared_experts, 2u);
  EXPECT_EQ(v2->topk_method, TopkMethod::kGreedy);
  EXPECT_THAT(v2->eos_token_ids, ElementsAre(2));

  EXPECT_THAT(std::string(Parse({{"model_type", "deepseek_v2"}}).status().message()),
              HasSubstr("num_experts_per_tok is missing"));
}

// The numbers are those of transformers 5.23 for the same settings.
TEST(ModelConfig, DerivesYarn) {
  struct Case {
    std::string name;
    Json json;
    std::vector<std::pair<int, float>> frequencies;
    float attention_factor;
    float softmax_scale;
  };
  const Json small = Patched(
      R1(),
      {{"max_position_embeddings", 4096}, {"qk_rope_head_dim", 16}, {"qk_nope_head_dim", 24}});
  const auto scaled = [&](const Json& scaling) {
    Json json = small;
    json["rope_theta"] = 50000.0;
    json["rope_scaling"] =
        Patched({{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}},
                scaling);
    return json;
  };
  const std::vector<std::pair<int, float>> blended = {
      {0, 1.0f}, {1, 0.210112631f}, {2, 0.0417962708f}, {3, 0.00756596494f}, {7, 1.93348696e-05f}};
  const Case cases[] = {
      {"R1",
       R1(),
       {{0, 1.0f},
        {10, 0.0562341288f},
        {11, 0.0390069261f},
        {16, 0.00550000044f},
        {22, 0.00017782794f},
        {23, 3.3338034e-05f},
        {31, 3.33380353e-06f}},
       1.0f,
       0.1352337788608801f},
      {"V2-Lite", V2Lite(), {{11, 0.0390069261f}}, 1.0f, 0.1147213867929261f},
      {"mscale alone is not used", scaled({{"mscale", 0.5}}), blended, 1.138629436f, 0.158113883f},
      {"without truncation",
       scaled({{"truncate", false}, {"mscale", 1.0}, {"mscale_all_dim", 0.7}}),
       {{1, 0.235221356f}, {2, 0.0412555337f}, {3, 0.00560717285f}},
       1.03791002f,
       0.190289756f},
      {"attention factor given", scaled({{"attention_factor", 1.25}}), blended, 1.25f,
       0.158113883f},
      {"zero betas mean the defaults", scaled({{"beta_fast", 0}, {"beta_slow", nullptr}}), blended,
       1.138629436f, 0.158113883f},
      {"null factor is the ratio of the contexts",
       scaled({{"factor", nullptr}}),
       {{7, 4.0f / 8.0f * 1.93348696e-05f}},
       1.20794415f,
       0.158113883f},
  };
  for (const Case& test : cases) {
    const absl::StatusOr<ModelConfig> config = Parse(test.json);
    ASSERT_TRUE(config.ok()) << test.name << ": " << config.status();
    ASSERT_EQ(config->rope_inverse_frequencies.size(), config->qk_rope_head_dim / 2);
    for (const auto& [index, value] : test.frequencies) {
      EXPECT_NEAR(config->rope_inverse_frequencies[static_cast<std::size_t>(index)], value,
                  value * 4e-7f)
          << test.name << ", pair " << index;
    }
    EXPECT_FLOAT_EQ(config->rope_attention_factor, test.attention_factor) << test.name;
    EXPECT_FLOAT_EQ(config->softmax_scale, test.softmax_scale) << test.name;
  }
}

TEST(ModelConfig, ReadsWhatVaries) {
  const auto parsed = [](const Json& base, const Json& patch) {
    const absl::StatusOr<ModelConfig> config = Parse(Patched(base, patch));
    EXPECT_TRUE(config.ok()) << config.status();
    return config.value_or(ModelConfig());
  };
  EXPECT_FALSE(parsed(R1(), {{"rope_interleave", false}}).rope_interleave);
  EXPECT_TRUE(parsed(V2Lite(), {{"rope_interleave", false}}).rope_interleave)
      << "V2 has no such field";
  EXPECT_EQ(parsed(R1(), {{"n_shared_experts", nullptr}}).n_shared_experts, 0u);
  EXPECT_EQ(parsed(R1(), {{"n_shared_experts", 0}}).n_shared_experts, 0u);
  EXPECT_FALSE(parsed(V2Lite(), {{"norm_topk_prob", true}}).norm_topk_prob) << "as in transformers";
  EXPECT_FALSE(parsed(R1(), {{"quantization_config", nullptr}}).fp8_weights);
  EXPECT_EQ(parsed(R1(), {{"num_key_value_heads", nullptr}}).num_attention_heads, 128u);

  const ModelConfig grouped = parsed(
      V2Lite(), {{"topk_method", "group_limited_greedy"}, {"n_group", 8}, {"topk_group", 3}});
  EXPECT_EQ(grouped.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(grouped.experts_per_group(), 8u);
  EXPECT_EQ(grouped.topk_group, 3u);
  const ModelConfig greedy = parsed(V2Lite(), {{"n_group", nullptr}, {"topk_group", nullptr}});
  EXPECT_EQ(greedy.n_group, 1u);

  const ModelConfig dense =
      parsed(V2Lite(), {{"first_k_dense_replace", 99}, {"num_experts_per_tok", nullptr}});
  EXPECT_EQ(dense.first_k_dense_replace, 27u);
  EXPECT_TRUE(dense.is_dense(26));
}

TEST(ModelConfig, EosTokensComeFromTheGenerationConfigFirst) {
  const std::string config = R1().dump();
  const auto eos = [&](const std::string& generation) {
    const absl::StatusOr<ModelConfig> parsed = ParseModelConfig(config, generation);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return parsed.value_or(ModelConfig()).eos_token_ids;
  };
  EXPECT_THAT(eos(R"({"eos_token_id": 7})"), ElementsAre(7));
  EXPECT_THAT(eos(R"({"eos_token_id": [9, 7, 9]})"), ElementsAre(7, 9));
  EXPECT_THAT(eos(R"({"temperature": 0.6})"), ElementsAre(1));
  EXPECT_THAT(eos(R"({"eos_token_id": null})"), ElementsAre(1));
  EXPECT_THAT(Parse(Patched(R1(), {{"eos_token_id", nullptr}}))->eos_token_ids, IsEmpty());
  EXPECT_THAT(Parse(Patched(R1(), {{"eos_token_id", {3, 2}}}))->eos_token_ids, ElementsAre(2, 3));

  for (const char* bad : {R"({"eos_token_id": 129280})", R"({"eos_token_id": -1})",
                          R"({"eos_token_id": "1"})", R"({"eos_token_id": [1, 2.5]})"}) {
    const absl::Status status = ParseModelConfig(config, bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json: eos_token_id is"))
        << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("[0, 129280)")) << bad;
  }
}

struct Refusal {
  Json base;
  Json patch;
  std::vector<std::string> says;
};

void ExpectRefusals(const std::vector<Refusal>& cases) {
  for (const Refusal& test : cases) {
    const absl::Status status = Parse(Patched(test.base, test.patch)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.patch.dump();
    EXPECT_THAT(std::string(status.message()), testing::StartsWith("config.json: "))
        << test.patch.dump();
    for (const std::string& part : test.says) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(part)) << test.patch.dump();
    }
  }
}

TEST(ModelConfig, RefusesModelsItCannotRun) {
  ExpectRefusals({
      {R1(),
       {{"model_type", "llama"}},
       {"model_type", "llama", "deepseek_v2, deepseek_v3 or kimi_k2"}},
      {R1(), {{"model_type", "DELETE"}}, {"model_type is missing"}},
      {R1(), {{"model_type", 3}}, {"model_type", "3", "string"}},
      {R1(), {{"vocab_size", 0}}, {"vocab_size is 0", "[1, 1048576]"}},
      {R1(), {{"vocab_size", -5}}, {"vocab_size is -5"}},
      {R1(), {{"vocab_size", 1e300}}, {"vocab_size"}},
      {R1(), {{"vocab_size", 18446744073709551615u}}, {"vocab_size is 18446744073709551615"}},
      {R1(), {{"hidden_size", 7168.5}}, {"hidden_size is 7168.5", "integer"}},
      {R1(), {{"hidden_size", 65537}}, {"hidden_size", "65536"}},
      {R1(), {{"hidden_size", nullptr}}, {"hidden_size is null"}},
      {R1(), {{"intermediate_size", "18432"}}, {"intermediate_size", "integer"}},
      {R1(), {{"num_hidden_layers", 513}}, {"num_hidden_layers is 513", "[1, 512]"}},
      {R1(), {{"num_attention_heads", 0}}, {"num_attention_heads"}},
      {R1(), {{"max_position_embeddings", 0}}, {"max_position_embeddings"}},
      {R1(), {{"rms_norm_eps", 0}}, {"rms_norm_eps", "(0, 0.1]"}},
      {R1(), {{"rms_norm_eps", "1e-6"}}, {"rms_norm_eps", "number"}},
      {R1(), {{"tie_word_embeddings", 1}}, {"tie_word_embeddings", "true or false"}},
      {R1(), {{"num_nextn_predict_layers", 17}}, {"num_nextn_predict_layers", "[0, 16]"}},
      {R1(), {{"hidden_act", "gelu"}}, {"hidden_act", "gelu", "silu"}},
      {R1(), {{"attention_bias", true}}, {"attention_bias"}},
      {V2Lite(), {{"mlp_bias", true}}, {"mlp_bias"}},
      {R1(), {{"quantization_config", 8}}, {"quantization_config must be an object"}},
      {R1(), {{"quantization_config", {{"quant_method", "awq"}}}}, {"quant_method", "awq", "fp8"}},
      {R1(), {{"quantization_config", {{"quant_method", "DELETE"}}}}, {"quant_method is missing"}},
      {R1(), {{"quantization_config", {{"fmt", "e5m2"}}}}, {"fmt", "e5m2", "e4m3"}},
      {R1(),
       {{"quantization_config", {{"weight_block_size", {64, 64}}}}},
       {"weight_block_size", "[64,64]", "[128,128]"}},
      {R1(), {{"quantization_config", {{"weight_block_size", nullptr}}}}, {"weight_block_size"}},
      {R1(), {{"quantization_config", {{"activation_scheme", "static"}}}}, {"activation_scheme"}},
      {R1(), {{"eos_token_id", 200000}}, {"config.json: eos_token_id", "200000", "[0, 129280)"}},
  });
}

TEST(ModelConfig, RefusesAttentionItCannotRun) {
  ExpectRefusals({
      {R1(), {{"num_key_value_heads", 8}}, {"num_key_value_heads is 8", "128"}},
      {R1(), {{"q_lora_rank", 0}}, {"q_lora_rank is 0"}},
      {R1(), {{"kv_lora_rank", 0}}, {"kv_lora_rank"}},
      {R1(), {{"qk_rope_head_dim", 63}}, {"qk_rope_head_dim is 63", "even"}},
      {R1(), {{"qk_nope_head_dim", 5000}}, {"qk_nope_head_dim", "4096"}},
      {R1(), {{"v_head_dim", nullptr}}, {"v_head_dim"}},
      {R1(), {{"head_dim", 128}}, {"head_dim is 128", "64"}},
      {R1(), {{"qk_head_dim", 128}}, {"qk_head_dim", "192"}},
      {R1(), {{"rope_theta", 1.0}}, {"rope_theta", "(1, "}},
      {R1(), {{"rope_scaling", "yarn"}}, {"rope_scaling must be an object"}},
      {R1(),
       {{"rope_scaling", {{"type", "linear"}}}},
       {"rope_scaling", "linear", "default or yarn"}},
      {R1(), {{"rope_scaling", {{"factor", "DELETE"}}}}, {"rope_scaling: factor is missing"}},
      {R1(), {{"rope_scaling", {{"factor", -2}}}}, {"rope_scaling: factor is -2"}},
      {R1(),
       {{"rope_scaling", {{"original_max_position_embeddings", 0}}}},
       {"original_max_position_embeddings"}},
      {R1(), {{"rope_scaling", {{"partial_rotary_factor", 0.5}}}}, {"partial_rotary_factor"}},
  });
}

TEST(ModelConfig, RefusesExpertsItCannotRun) {
  ExpectRefusals({
      {R1(), {{"moe_layer_freq", 2}}, {"moe_layer_freq", "2"}},
      {R1(), {{"first_k_dense_replace", -1}}, {"first_k_dense_replace"}},
      {R1(), {{"topk_method", "greedy"}}, {"topk_method", "greedy", "noaux_tc"}},
      {R1(), {{"scoring_func", "softmax"}}, {"scoring_func", "softmax", "sigmoid"}},
      {V2Lite(), {{"scoring_func", "sigmoid"}}, {"scoring_func", "sigmoid", "softmax"}},
      {V2Lite(),
       {{"topk_method", "noaux_tc"}},
       {"topk_method", "noaux_tc", "group_limited_greedy"}},
      {R1(), {{"n_routed_experts", 0}}, {"n_routed_experts", "[1, 4096]"}},
      {R1(), {{"n_routed_experts", 4097}}, {"n_routed_experts", "4096"}},
      {R1(), {{"n_shared_experts", 65}}, {"n_shared_experts", "[0, 64]"}},
      {R1(), {{"n_group", 7}}, {"n_group is 7", "divide n_routed_experts, 256"}},
      {R1(), {{"n_group", nullptr}}, {"n_group is null"}},
      {R1(), {{"n_group", 256}}, {"n_group", "at least 2"}},
      {R1(), {{"topk_group", 9}}, {"topk_group is 9", "[1, 8]"}},
      {R1(), {{"num_experts_per_tok", 0}}, {"num_experts_per_tok"}},
      {R1(), {{"num_experts_per_tok", 257}}, {"num_experts_per_tok", "256"}},
      {R1(), {{"topk_group", 1}, {"num_experts_per_tok", 33}}, {"num_experts_per_tok", "only 32"}},
      {R1(), {{"routed_scaling_factor", -1.0}}, {"routed_scaling_factor"}},
  });
}

TEST(ModelConfig, RefusesMalformedJson) {
  struct Case {
    std::string text;
    std::string says;
  };
  std::string deep = R"({"model_type": "deepseek_v3", "x": )";
  deep += std::string(100'000, '[') + std::string(100'000, ']') + "}";
  const Case cases[] = {
      {"", "not valid JSON"},
      {"[]", "not a JSON object"},
      {std::string(R"({"model_type": "deepseek_v3"})") + '\0' + "{", "a zero byte"},
      {"{", "not valid JSON"},
      {R"({"model_type": "deepseek_v3"} x)", "not valid JSON"},
      {R"({"model_type": "deepseek_v3", "rms_norm_eps": NaN})", "not valid JSON"},
      {R"({"model_type": "deepseek_v3", "rms_norm_eps": -Infinity})", "not valid JSON"},
      {R"({"model_type": "deepseek_v3", "rms_norm_eps": 1e999})", "not valid JSON"},
      {R"({"model_type": "deepseek_v3", "hidden_size": 64, "hidden_size": 65})",
       "duplicate key \"hidden_size\""},
      {"{\"model_type\": \"\xff\xfe\"}", "not valid JSON"},
      {deep, "nested deeper than 32"},
      {"{\"model_type\": \"" + std::string(kConfigBytesMax, 'x') + "\"}", "the limit is 1048576"},
  };
  for (const Case& test : cases) {
    const absl::Status status = ParseModelConfig(test.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.says));
    EXPECT_LT(status.message().size(), 400u) << "an error is one short line";
  }
}

class ModelDirectory : public ::testing::Test {
 protected:
  ModelDirectory() {
    std::string pattern = testing::TempDir() + "config_testXXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~ModelDirectory() override { std::filesystem::remove_all(directory_); }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }
  std::filesystem::path directory_;
};

TEST_F(ModelDirectory, LoadsBothFiles) {
  Write("config.json", R1().dump());
  EXPECT_THAT(LoadModelConfig(directory_.string())->eos_token_ids, ElementsAre(1));
  Write("generation_config.json", R"({"eos_token_id": [1, 4]})");
  EXPECT_THAT(LoadModelConfig(directory_.string())->eos_token_ids, ElementsAre(1, 4));
  Write("generation_config.json", "{");
  EXPECT_THAT(std::string(LoadModelConfig(directory_.string()).status().message()),
              HasSubstr("generation_config.json: not valid JSON"));
}

TEST_F(ModelDirectory, NamesWhatIsMissing) {
  const absl::Status no_file = LoadModelConfig(directory_.string()).status();
  EXPECT_EQ(no_file.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(no_file.message()), HasSubstr((directory_ / "config.json").string()));

  const absl::Status no_directory = LoadModelConfig((directory_ / "none").string()).status();
  EXPECT_EQ(no_directory.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(no_directory.message()), HasSubstr((directory_ / "none").string()));

  Write("config.json", std::string(kConfigBytesMax + 1, ' '));
  EXPECT_THAT(std::string(LoadModelConfig(directory_.string()).status().message()),
              HasSubstr("the limit is 1048576"));
}

TEST(ModelConfig, LoadsTheShippedModel) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig("models/nano");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, ModelFamily::kDeepseekV3);
  EXPECT_TRUE(config->fp8_weights);
  EXPECT_FALSE(config->eos_token_ids.empty());
}

}  // namespace
}  // namespace baleen::worker
