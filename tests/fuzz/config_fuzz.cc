// Fuzz target: any bytes as config.json, and as generation_config.json of a valid model. What is
// accepted must be safe to compute with.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/model/config.h"

namespace {

constexpr std::string_view kValid = R"({"model_type": "deepseek_v3", "vocab_size": 300})";

void CheckConfig(const absl::StatusOr<baleen::worker::ModelConfig>& config) {
  if (!config.ok()) {
    BALEEN_CHECK(!config.status().message().empty(), "an error says why");
    BALEEN_CHECK(config.status().message().size() < 1000, "an error is one short line");
    return;
  }
  BALEEN_CHECK(config->vocab_size > 0 && config->hidden_size > 0 && config->num_hidden_layers > 0,
               "sizes are positive");
  BALEEN_CHECK(config->qk_rope_head_dim == 2 * config->rope_inverse_frequencies.size(),
               "one frequency for each pair");
  BALEEN_CHECK(std::ranges::all_of(config->rope_inverse_frequencies,
                                   [](float f) { return std::isfinite(f) && f >= 0.0f; }),
               "frequencies are finite");
  BALEEN_CHECK(std::isfinite(config->softmax_scale) && config->softmax_scale > 0.0f,
               "the softmax scale is positive");
  BALEEN_CHECK(std::isfinite(config->rope_attention_factor), "the attention factor is finite");
  BALEEN_CHECK(std::ranges::all_of(config->eos_token_ids,
                                   [&](std::int32_t id) {
                                     return id >= 0 &&
                                            static_cast<std::uint32_t>(id) < config->vocab_size;
                                   }),
               "eos tokens are in the vocabulary");
  if (config->first_k_dense_replace == config->num_hidden_layers) return;
  BALEEN_CHECK(config->n_group > 0 && config->n_routed_experts % config->n_group == 0,
               "groups are equal");
  BALEEN_CHECK(config->num_experts_per_tok >= 1 &&
                   config->num_experts_per_tok <= config->topk_group * config->experts_per_group(),
               "enough experts are eligible");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CheckConfig(baleen::worker::ParseModelConfig(text));
  CheckConfig(baleen::worker::ParseModelConfig(kValid, text));
  return 0;
}
