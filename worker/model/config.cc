#include "worker/model/config.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numbers>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"
#include "observability/base/status_macros.h"
#include "worker/model/format/json_fields.h"
#include "worker/model/format/strict_json.h"

namespace baleen::worker {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kEosTokensMax = 64;
constexpr double kRopeThetaDefault = 10'000.0;

// What transformers assumes for a missing field (DeepseekV2Config, DeepseekV3Config).
struct FamilyDefaults {
  std::int64_t vocab_size, hidden_size, intermediate_size, moe_intermediate_size, num_hidden_layers;
  std::int64_t num_attention_heads, max_position_embeddings;
  std::int64_t first_k_dense_replace, n_routed_experts, n_shared_experts;
  std::optional<std::int64_t> num_experts_per_tok, n_group, topk_group;
  bool norm_topk_prob;
  double routed_scaling_factor;
  std::int64_t num_nextn_predict_layers;
  std::int32_t eos_token_id;
};

constexpr FamilyDefaults kV2Defaults = {.vocab_size = 102'400,
                                        .hidden_size = 4096,
                                        .intermediate_size = 11'008,
                                        .moe_intermediate_size = 1407,
                                        .num_hidden_layers = 32,
                                        .num_attention_heads = 32,
                                        .max_position_embeddings = 2048,
                                        .first_k_dense_replace = 0,
                                        .n_routed_experts = 64,
                                        .n_shared_experts = 2,
                                        .num_experts_per_tok = std::nullopt,
                                        .n_group = std::nullopt,
                                        .topk_group = std::nullopt,
                                        .norm_topk_prob = false,
                                        .routed_scaling_factor = 1.0,
                                        .num_nextn_predict_layers = 0,
                                        .eos_token_id = 2};

constexpr FamilyDefaults kV3Defaults = {.vocab_size = 129'280,
                                        .hidden_size = 7168,
                                        .intermediate_size = 18'432,
                                        .moe_intermediate_size = 2048,
                                        .num_hidden_layers = 61,
                                        .num_attention_heads = 128,
                                        .max_position_embeddings = 4096,
                                        .first_k_dense_replace = 3,
                                        .n_routed_experts = 256,
                                        .n_shared_experts = 1,
                                        .num_experts_per_tok = 8,
                                        .n_group = 8,
                                        .topk_group = 4,
                                        .norm_topk_prob = true,
                                        .routed_scaling_factor = 2.5,
                                        .num_nextn_predict_layers = 1,
                                        .eos_token_id = 1};

// Equal in both families.
constexpr std::int64_t kQLoraRankDefault = 1536;
constexpr std::int64_t kKvLoraRankDefault = 512;
constexpr std::int64_t kHeadDimDefault = 128;
constexpr std::int64_t kRopeHeadDimDefault = 64;
constexpr double kRmsNormEpsDefault = 1e-6;

absl::StatusOr<ModelFamily> ReadFamily(const Json& json) {
  JsonFields fields("config.json", json);
  const std::string type = fields.String("model_type", "");
  BALEEN_RETURN_IF_ERROR(fields.status());
  if (type == "deepseek_v2") return ModelFamily::kDeepseekV2;
  if (type == "deepseek_v3" || type == "kimi_k2") return ModelFamily::kDeepseekV3;
  fields.Refuse("model_type", "it must be deepseek_v2, deepseek_v3 or kimi_k2");
  return fields.status();
}

void ReadShape(JsonFields& fields, const FamilyDefaults& defaults, ModelConfig& config) {
  constexpr std::int64_t kWidthMax = 1 << 16;
  config.vocab_size = fields.Integer("vocab_size", {defaults.vocab_size});
  config.hidden_size = fields.Integer("hidden_size", {defaults.hidden_size, 1, kWidthMax});
  config.intermediate_size = fields.Integer("intermediate_size", {defaults.intermediate_size});
  config.num_hidden_layers =
      fields.Integer("num_hidden_layers", {defaults.num_hidden_layers, 1, 512});
  config.num_attention_heads =
      fields.Integer("num_attention_heads", {defaults.num_attention_heads, 1, 1024});
  config.max_position_embeddings =
      fields.Integer("max_position_embeddings", {defaults.max_position_embeddings, 1, 1 << 24});
  config.rms_norm_eps =
      static_cast<float>(fields.Number("rms_norm_eps", {kRmsNormEpsDefault, 0.0, 0.1}));
  config.tie_word_embeddings = fields.Boolean("tie_word_embeddings", false);
  config.num_nextn_predict_layers =
      fields.Integer("num_nextn_predict_layers", {defaults.num_nextn_predict_layers, 0, 16});
  fields.Expect("hidden_act", "silu", "the MLP of both families");
  fields.Expect("attention_bias", false, "projections of attention have no bias");
  fields.Expect("mlp_bias", false, "projections of the MLP have no bias");
}

void ReadAttention(JsonFields& fields, ModelConfig& config) {
  constexpr std::int64_t kRankMax = 1 << 16;
  constexpr std::int64_t kHeadDimMax = 4096;
  // transformers and DeepSeek write null for "no query compression"; a missing field is the default
  // rank.
  config.q_lora_rank = fields.IsNull("q_lora_rank")
                           ? 0
                           : fields.Integer("q_lora_rank", {kQLoraRankDefault, 1, kRankMax});
  config.kv_lora_rank = fields.Integer("kv_lora_rank", {kKvLoraRankDefault, 1, kRankMax});
  config.qk_nope_head_dim = fields.Integer("qk_nope_head_dim", {kHeadDimDefault, 1, kHeadDimMax});
  config.qk_rope_head_dim =
      fields.Integer("qk_rope_head_dim", {kRopeHeadDimDefault, 2, kHeadDimMax});
  config.v_head_dim = fields.Integer("v_head_dim", {kHeadDimDefault, 1, kHeadDimMax});
  if (config.qk_rope_head_dim % 2 != 0) {
    fields.Refuse("qk_rope_head_dim", "it must be even: dimensions are rotated in pairs");
  }
  fields.Expect("num_key_value_heads", config.num_attention_heads,
                "every head of MLA has keys and values of its own");
  fields.Expect("qk_head_dim", config.qk_head_dim(), "qk_nope_head_dim + qk_rope_head_dim");
  fields.Expect("head_dim", config.qk_rope_head_dim, "qk_rope_head_dim");
  const bool interleave = fields.Boolean("rope_interleave", true);
  config.rope_interleave = config.family == ModelFamily::kDeepseekV2 || interleave;
}

void ReadGroups(JsonFields& fields, const FamilyDefaults& defaults, ModelConfig& config) {
  config.n_group = fields.Integer("n_group", {defaults.n_group, 1, config.n_routed_experts});
  config.topk_group = fields.Integer("topk_group", {defaults.topk_group, 1, config.n_group});
  if (config.n_routed_experts % config.n_group != 0) {
    fields.Refuse("n_group",
                  fmt::format("it must divide n_routed_experts, {}", config.n_routed_experts));
  } else if (config.topk_method == TopkMethod::kNoauxTc && config.experts_per_group() < 2) {
    fields.Refuse("n_group",
                  fmt::format("a group of the {} experts must hold at least 2: its score is "
                              "the sum of its two best",
                              config.n_routed_experts));
  }
}

void ReadTopkMethod(JsonFields& fields, ModelConfig& config) {
  if (config.family == ModelFamily::kDeepseekV3) {
    fields.Expect("topk_method", "noaux_tc", "the gate of deepseek_v3");
    fields.Expect("scoring_func", "sigmoid", "the gate of deepseek_v3");
    config.topk_method = TopkMethod::kNoauxTc;
    config.scoring_func = ScoringFunction::kSigmoid;
    return;
  }
  fields.Expect("scoring_func", "softmax", "the gate of deepseek_v2");
  config.scoring_func = ScoringFunction::kSoftmax;
  const std::string method = fields.String("topk_method", "greedy");
  config.topk_method = method == "greedy" ? TopkMethod::kGreedy : TopkMethod::kGroupLimitedGreedy;
  if (method != "greedy" && method != "group_limited_greedy") {
    fields.Refuse("topk_method", "in deepseek_v2 it must be greedy or group_limited_greedy");
  }
}

void ReadExperts(JsonFields& fields, const FamilyDefaults& defaults, ModelConfig& config) {
  constexpr std::int64_t kExpertsMax = 4096;
  const auto layers = static_cast<std::int64_t>(config.num_hidden_layers);
  const std::uint32_t dense =
      fields.Integer("first_k_dense_replace",
                     {defaults.first_k_dense_replace, 0, std::numeric_limits<std::int32_t>::max()});
  config.first_k_dense_replace = std::min(dense, config.num_hidden_layers);
  if (config.first_k_dense_replace == layers)
    return;  // no expert anywhere: the other fields mean nothing

  fields.Expect("moe_layer_freq", 1, "every layer after the dense ones has experts");
  ReadTopkMethod(fields, config);
  config.moe_intermediate_size =
      fields.Integer("moe_intermediate_size", {defaults.moe_intermediate_size, 1, 1 << 16});
  config.n_routed_experts =
      fields.Integer("n_routed_experts", {defaults.n_routed_experts, 1, kExpertsMax});
  config.n_shared_experts =
      fields.IsNull("n_shared_experts")
          ? 0
          : fields.Integer("n_shared_experts", {defaults.n_shared_experts, 0, 64});
  if (config.topk_method != TopkMethod::kGreedy) ReadGroups(fields, defaults, config);
  config.num_experts_per_tok = fields.Integer(
      "num_experts_per_tok", {defaults.num_experts_per_tok, 1, config.n_routed_experts});
  if (const std::uint32_t reachable = config.experts_per_group() * config.topk_group;
      config.num_experts_per_tok > reachable) {
    fields.Refuse("num_experts_per_tok",
                  fmt::format("topk_group {} groups of {} experts hold only {}", config.topk_group,
                              config.experts_per_group(), reachable));
  }
  config.norm_topk_prob = fields.Boolean("norm_topk_prob", defaults.norm_topk_prob) &&
                          config.family == ModelFamily::kDeepseekV3;
  config.routed_scaling_factor = static_cast<float>(
      fields.Number("routed_scaling_factor", {defaults.routed_scaling_factor, 0.0, 10'000.0}));
}

// YaRN's settings, defaults filled in.
struct Yarn {
  double factor = 1.0;
  double original_positions = 1.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0.0;            // 0 = not given
  double mscale_all_dim = 0.0;    // 0 = not given
  double attention_factor = 0.0;  // 0 = not given
  bool truncate = true;
};

Yarn ReadYarn(JsonFields& fields, const ModelConfig& config) {
  // Null and 0 both mean "not given" here, as in transformers.
  const auto optional = [&](const char* name, double fallback, double max) {
    if (!fields.Has(name) || fields.at(name) == 0) return fallback;
    return fields.Number(name, {std::nullopt, 0.0, max});
  };
  Yarn yarn;
  yarn.original_positions = fields.Integer("original_max_position_embeddings",
                                           {config.max_position_embeddings, 1, 1 << 24});
  yarn.factor = fields.IsNull("factor") ? config.max_position_embeddings / yarn.original_positions
                                        : fields.Number("factor", {std::nullopt, 0.0, 1e6});
  yarn.beta_fast = optional("beta_fast", yarn.beta_fast, 1e6);
  yarn.beta_slow = optional("beta_slow", yarn.beta_slow, 1e6);
  yarn.mscale = optional("mscale", 0.0, 1e3);
  yarn.mscale_all_dim = optional("mscale_all_dim", 0.0, 1e3);
  yarn.attention_factor = optional("attention_factor", 0.0, 1e3);
  yarn.truncate = fields.Boolean("truncate", true);
  return yarn;
}

double YarnMscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// The pairs below `low` keep their frequency, those above `high` are slowed down by the factor,
// those between are blended.
std::vector<double> YarnFrequencies(const std::vector<double>& plain, const Yarn& yarn,
                                    double theta) {
  const double dim = 2.0 * static_cast<double>(plain.size());
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(yarn.original_positions / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(theta));
  };
  double low = correction_dim(yarn.beta_fast);
  double high = correction_dim(yarn.beta_slow);
  if (yarn.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;  // the ramp needs a width

  std::vector<double> blended(plain.size());
  for (std::size_t i = 0; i < plain.size(); ++i) {
    const double slowed = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    blended[i] = plain[i] / yarn.factor * slowed + plain[i] * (1.0 - slowed);
  }
  return blended;
}

// Fills the derived fields: frequencies, their factor and the softmax scale.
void DeriveRope(double theta, const std::optional<Yarn>& yarn, ModelConfig& config) {
  const double dim = config.qk_rope_head_dim;
  std::vector<double> frequencies(config.qk_rope_head_dim / 2);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = 1.0 / std::pow(theta, 2.0 * static_cast<double>(i) / dim);
  }
  double softmax_scale = 1.0 / std::sqrt(static_cast<double>(config.qk_head_dim()));
  if (yarn) {
    frequencies = YarnFrequencies(frequencies, *yarn, theta);
    double factor = yarn->attention_factor;
    if (factor == 0.0 && yarn->mscale != 0.0 && yarn->mscale_all_dim != 0.0) {
      factor =
          YarnMscale(yarn->factor, yarn->mscale) / YarnMscale(yarn->factor, yarn->mscale_all_dim);
    } else if (factor == 0.0) {
      factor = YarnMscale(yarn->factor, 1.0);
    }
    config.rope_attention_factor = static_cast<float>(factor);
    if (yarn->mscale_all_dim != 0.0) {
      const double mscale = YarnMscale(yarn->factor, yarn->mscale_all_dim);
      softmax_scale *= mscale * mscale;
    }
  }
  config.softmax_scale = static_cast<float>(softmax_scale);
  config.rope_inverse_frequencies.assign(frequencies.begin(), frequencies.end());
}

absl::Status ReadRope(const Json& json, ModelConfig& config) {
  // transformers 4 writes rope_scaling (null without scaling) and rope_theta beside it,
  // transformers 5 rope_parameters with rope_theta inside. Where both are given, transformers takes
  // rope_scaling.
  const bool scaling = json.contains("rope_scaling") && !json["rope_scaling"].is_null();
  const char* name = scaling ? "rope_scaling" : "rope_parameters";
  const bool present = json.contains(name) && !json[name].is_null();
  if (present && !json[name].is_object()) {
    return absl::InvalidArgumentError(fmt::format("config.json: {} must be an object", name));
  }
  static const Json kEmpty = Json::object();
  JsonFields fields(fmt::format("config.json: {}", name), present ? json[name] : kEmpty);
  JsonFields top("config.json", json);
  const double outer_theta = top.Number("rope_theta", {kRopeThetaDefault, 1.0, 1e12});
  BALEEN_RETURN_IF_ERROR(top.status());
  const double theta = fields.Number("rope_theta", {outer_theta, 1.0, 1e12});
  fields.Expect("partial_rotary_factor", 1, "all rope dimensions are rotated");

  const std::string type = fields.String("rope_type", fields.String("type", "default"));
  std::optional<Yarn> yarn;
  if (type == "yarn") {
    yarn = ReadYarn(fields, config);
  } else if (type != "default") {
    fields.Refuse(fields.Has("rope_type") ? "rope_type" : "type", "it must be default or yarn");
  }
  BALEEN_RETURN_IF_ERROR(fields.status());
  DeriveRope(theta, yarn, config);
  return absl::OkStatus();
}

absl::Status ReadQuantization(const Json& json, ModelConfig& config) {
  if (!json.contains("quantization_config") || json["quantization_config"].is_null()) {
    return absl::OkStatus();
  }
  if (!json["quantization_config"].is_object()) {
    return absl::InvalidArgumentError("config.json: quantization_config must be an object");
  }
  JsonFields fields("config.json: quantization_config", json["quantization_config"]);
  if (!fields.Has("quant_method")) fields.Refuse("quant_method", "it is required");
  if (!fields.Has("weight_block_size")) fields.Refuse("weight_block_size", "it must be [128, 128]");
  fields.Expect("quant_method", "fp8", "DeepSeek's block-scaled weights");
  fields.Expect("fmt", "e4m3", "the format of FP8 weights");
  fields.Expect("activation_scheme", "dynamic", "activations have no stored scales");
  fields.Expect("weight_block_size", Json::array({kScaleBlock, kScaleBlock}),
                "the blocks of DeepSeek-V3");
  config.fp8_weights = true;
  return fields.status();
}

absl::Status ReadEos(const Json& json, std::string_view file, ModelConfig& config) {
  constexpr const char* kName = "eos_token_id";
  if (!json.contains(kName) || json[kName].is_null()) return absl::OkStatus();
  const Json list = json[kName].is_array() ? json[kName] : Json::array({json[kName]});
  if (list.size() > kEosTokensMax) {
    return absl::InvalidArgumentError(fmt::format("{}: {} has {} tokens, the limit is {}", file,
                                                  kName, list.size(), kEosTokensMax));
  }
  std::vector<std::int32_t> ids;
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= config.vocab_size) {
      return absl::InvalidArgumentError(fmt::format("{}: {} is {}; a token id is in [0, {})", file,
                                                    kName, Shown(id.dump(-1, ' ', true)),
                                                    config.vocab_size));
    }
    ids.push_back(id.get<std::int32_t>());
  }
  std::ranges::sort(ids);
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  config.eos_token_ids = std::move(ids);
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseObject(std::string_view file, std::string_view text) {
  BALEEN_ASSIGN_OR_RETURN(
      Json json,
      ParseStrictJson(file, text, {.bytes_max = kConfigBytesMax, .depth_max = kConfigDepthMax}));
  if (!json.is_object()) {
    return absl::InvalidArgumentError(fmt::format("{}: not a JSON object", file));
  }
  return json;
}

// The whole file. kNotFound: there is none.
absl::StatusOr<std::string> ReadText(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(fmt::format("{}: no such file", path.string()));
  }
  std::ifstream stream(path, std::ios::binary);
  // One byte more than allowed: the parser then refuses by size.
  std::string text(kConfigBytesMax + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (stream.bad() || (stream.fail() && !stream.eof())) {
    return absl::PermissionDeniedError(fmt::format("{}: cannot be read", path.string()));
  }
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text) {
  BALEEN_ASSIGN_OR_RETURN(const Json json, ParseObject("config.json", text));
  ModelConfig config;
  BALEEN_ASSIGN_OR_RETURN(config.family, ReadFamily(json));
  const FamilyDefaults& defaults =
      config.family == ModelFamily::kDeepseekV2 ? kV2Defaults : kV3Defaults;
  JsonFields fields("config.json", json);
  ReadShape(fields, defaults, config);
  ReadAttention(fields, config);
  ReadExperts(fields, defaults, config);
  BALEEN_RETURN_IF_ERROR(fields.status());
  BALEEN_RETURN_IF_ERROR(ReadRope(json, config));
  BALEEN_RETURN_IF_ERROR(ReadQuantization(json, config));
  if (!json.contains("eos_token_id")) config.eos_token_ids = {defaults.eos_token_id};
  BALEEN_RETURN_IF_ERROR(ReadEos(json, "config.json", config));
  return config;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json,
                                             std::string_view generation_json) {
  BALEEN_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(json));
  BALEEN_ASSIGN_OR_RETURN(const Json generation,
                          ParseObject("generation_config.json", generation_json));
  BALEEN_RETURN_IF_ERROR(ReadEos(generation, "generation_config.json", config));
  return config;
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory) {
  const std::filesystem::path root(directory);
  std::error_code error;
  if (!std::filesystem::is_directory(root, error)) {
    return absl::NotFoundError(fmt::format("model directory {}: no such directory", directory));
  }
  const auto named = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        fmt::format("{}: {}", directory, std::string(status.message())));
  };
  BALEEN_ASSIGN_OR_RETURN(const std::string json, ReadText(root / "config.json"));
  const absl::StatusOr<std::string> generation = ReadText(root / "generation_config.json");
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  absl::StatusOr<ModelConfig> config =
      generation.ok() ? ParseModelConfig(json, *generation) : ParseModelConfig(json);
  if (!config.ok()) return named(config.status());
  return config;
}

}  // namespace baleen::worker
