#include "tools/cli/doctor/model_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "proto/contract/limits.h"
#include "router/text/chat_template.h"
#include "router/text/tokenizer.h"
#include "tools/cli/doctor/machine_checks.h"
#include "tools/cli/terminal/table.h"
#include "worker/device/reference_device.h"
#include "worker/expert_parallel/placement.h"
#include "worker/host.h"
#include "worker/model/checkpoint.h"
#include "worker/model/config.h"
#include "worker/model/deepseek_model.h"

namespace baleen::cli {
namespace {

constexpr std::uint64_t kLoadBytesMax = 1u << 30;
// Packed weights are as large as the checkpoint, but for the absorbed halves of kv_b, which are
// there twice.
constexpr double kPackedShare = 1.15;

Check Bad(std::string name, const absl::Status& status, std::string fix) {
  return {.name = std::move(name),
          .level = CheckLevel::kBad,
          .detail = std::string(status.message()),
          .fix = std::move(fix)};
}

std::uint64_t KvBlockBytes(const worker::ModelConfig& config) {
  return std::uint64_t{config.num_hidden_layers} * contract::kBlockTokens * config.kv_row() * 2;
}

Check DescribeConfig(const worker::ModelConfig& config) {
  const bool v3 = config.family == worker::ModelFamily::kDeepseekV3;
  return {.name = "model config",
          .detail = fmt::format("{}, {} layers, {} experts, context {}, vocabulary {}{}",
                                v3 ? "deepseek_v3" : "deepseek_v2", config.num_hidden_layers,
                                config.n_routed_experts, config.max_position_embeddings,
                                config.vocab_size, config.fp8_weights ? ", FP8" : "")};
}

Check CheckWeights(const std::string& directory, const worker::Checkpoint& checkpoint) {
  Check check{.name = "model weights",
              .detail = fmt::format("{} tensors, {}", checkpoint.names().size(),
                                    FormatBytes(checkpoint.bytes()))};
  if (checkpoint.bytes() > kLoadBytesMax) {
    check.detail += "; headers are sound, too large to load for a check";
    return check;
  }
  const auto device = worker::MakeReferenceDevice();
  const auto model = worker::DeepSeekModel::Load(
      {.directory = directory, .limits = {.tokens_max = 1, .sequences_max = 1}}, *device);
  if (!model.ok()) {
    return Bad("model weights", model.status(), "download or export the checkpoint again");
  }
  check.detail += ", loads";
  return check;
}

Check CheckText(const std::string& directory) {
  const auto tokenizer = router::Tokenizer::Load(directory);
  if (!tokenizer.ok()) {
    return Bad("model text", tokenizer.status(),
               "copy tokenizer.json and tokenizer_config.json; without them only 'generate "
               "--token-ids' works");
  }
  const auto chat = router::ChatTemplate::Load(directory, *tokenizer);
  if (!chat.ok()) {
    return Bad("model text", chat.status(), "copy tokenizer_config.json with its chat_template");
  }
  return {.name = "model text",
          .detail =
              fmt::format("tokenizer of {} tokens, chat template", (*tokenizer)->table().id_end())};
}

// Of the routed experts, which the ranks of a group share.
std::uint64_t ExpertBytes(const worker::Checkpoint& checkpoint) {
  std::uint64_t bytes = 0;
  for (const std::string& name : checkpoint.names()) {
    if (name.find(".mlp.experts.") == name.npos) continue;
    if (const auto tensor = checkpoint.Get(name); tensor.ok()) bytes += tensor->data.size();
  }
  return bytes;
}

// Weights: the experts once for each group, the rest for each worker. KV for each worker: as many
// blocks as it is told to take, else one full context.
std::uint64_t NeededBytes(const worker::ModelConfig& config, const worker::Checkpoint& checkpoint,
                          const ModelDemand& demand) {
  const std::uint64_t context_blocks =
      (config.max_position_embeddings + contract::kBlockTokens - 1) / contract::kBlockTokens;
  const std::uint64_t blocks = demand.kv_blocks > 0 ? demand.kv_blocks : context_blocks;
  const std::uint64_t experts = ExpertBytes(checkpoint);
  const std::uint64_t weights =
      demand.workers.groups * experts + demand.workers.workers() * (checkpoint.bytes() - experts);
  return static_cast<std::uint64_t>(kPackedShare * static_cast<double>(weights)) +
         demand.workers.workers() * blocks * KvBlockBytes(config);
}

Check CheckExperts(const worker::ModelConfig& config, const Topology& workers) {
  const auto experts = static_cast<std::int32_t>(config.n_routed_experts);
  const absl::Status fits = worker::CheckPlacementShape(
      {.experts = experts, .ranks = static_cast<std::int32_t>(workers.ranks)});
  if (!fits.ok()) {
    return Bad("model experts", fits,
               "take a number of ranks that divides the experts, or add --redundant-experts");
  }
  return {.name = "model experts",
          .detail = fmt::format("{} of a layer over {} ranks of a group: {} on each", experts,
                                workers.ranks, experts / static_cast<std::int32_t>(workers.ranks))};
}

}  // namespace

Checks CheckModel(const std::string& directory, const ModelDemand& demand) {
  Checks checks;
  const auto config = worker::LoadModelConfig(directory);
  checks.push_back(config.ok() ? DescribeConfig(*config)
                               : Bad("model config", config.status(),
                                     "give the directory of a DeepSeek-V2 or -V3 checkpoint in "
                                     "Hugging Face layout"));
  const auto checkpoint = worker::Checkpoint::Open(directory);
  if (!checkpoint.ok()) {
    checks.push_back(
        Bad("model weights", checkpoint.status(), "download or export the checkpoint again"));
  } else if (config.ok()) {
    checks.push_back(CheckWeights(directory, **checkpoint));
  }
  checks.push_back(CheckText(directory));
  if (config.ok() && demand.workers.ranks > 1) {
    checks.push_back(CheckExperts(*config, demand.workers));
  }
  if (config.ok() && checkpoint.ok()) {
    checks.push_back(
        CheckMemory(worker::AvailableMemoryBytes(), NeededBytes(*config, **checkpoint, demand)));
  }
  return checks;
}

}  // namespace baleen::cli
