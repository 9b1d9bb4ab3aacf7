#include "tools/cli/session/cluster_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <utility>

#include "observability/process/command_line.h"
#include "tools/cli/client/request_options.h"
#include "worker/expert_parallel/placement.h"
#include "worker/model/config.h"

namespace baleen::cli {
namespace {

constexpr absl::Duration kReadyLeast = absl::Seconds(60);
constexpr std::uint64_t kReadBytesPerSecond = 100'000'000;

// Of the weights' files; those that can not be read count nothing.
std::uint64_t WeightBytes(const std::string& directory) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code unreadable;
    const std::uint64_t size = entry->file_size(unreadable);
    if (!unreadable && entry->path().extension() == ".safetensors") bytes += size;
  }
  return bytes;
}

absl::Status CheckExperts(const ClusterSpec& spec) {
  const auto config = worker::LoadModelConfig(spec.model_directory);
  if (!config.ok()) return absl::OkStatus();
  for (const auto& [role, topology] : TopologiesOf(spec)) {
    if (topology.groups == 0 || topology.ranks == 1) continue;
    const absl::Status fits = worker::CheckPlacementShape(
        {.experts = static_cast<std::int32_t>(config->n_routed_experts),
         .ranks = static_cast<std::int32_t>(topology.ranks),
         .redundant_experts = static_cast<std::int32_t>(spec.group.redundant_experts)});
    if (!fits.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("--{} {} can not share the {} experts of the model and {} redundant ones: {}",
                      role, ToString(topology), config->n_routed_experts,
                      spec.group.redundant_experts, std::string(fits.message())));
    }
  }
  return absl::OkStatus();
}

void AddGroupOptions(CLI::App& command, GroupSpec& group) {
  const auto add = [&command](const char* name, auto& value, const char* type,
                              const char* description) {
    return command.add_option(name, value, description)->type_name(type);
  };
  add("--redundant-experts", group.redundant_experts, "N",
      "Replicas of busy experts in a group [0]")
      ->check(WholeNumber(0, kRedundantExpertsMax));
  add("--placement", group.placement_file, "FILE", "Experts to ranks at first [contiguous]");
  add("--dispatch", group.dispatch, "TYPE", "Rows travel to experts as bf16 or fp8 [bf16]")
      ->check(CLI::IsMember({"bf16", "fp8"}).description(""));
  add("--rebalance-seconds", group.rebalance_seconds, "N", "Between looks at the load; 0 = none")
      ->check(WholeNumber(0, kSecondsMax));
  add("--micro-batch-rows", group.micro_batch_rows, "N",
      "Overlap a step in two from so many tokens")
      ->check(WholeNumber(0, kMicroBatchRowsMax));
  add("--step-wait-ms", group.step_wait_ms, "N", "Wait for a rank within a step [5000]")
      ->check(WholeNumber(1, kStepWaitMsMax));
}

}  // namespace

CLI::Option* AddTopology(CLI::App& command, const char* name, Topology& value,
                         const char* description) {
  return command
      .add_option_function<std::string>(
          name, [&value](const std::string& text) { value = ParseTopology(text).value(); },
          description)
      ->type_name("GxR")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return std::string(ParseTopology(text).status().message());
          },
          ""));
}

void AddClusterOptions(CLI::App& command, ClusterOptions& options) {
  ClusterSpec& spec = options.spec;
  const auto add = [&command](const char* name, auto& value, const char* type,
                              const char* description) {
    return command.add_option(name, value, description)->type_name(type);
  };
  add("--model", spec.model_directory, "DIR", "Directory of the model")->required();
  AddTopology(command, "--prefill", spec.prefill, "Prefill groups x ranks [1 unless one is named]");
  AddTopology(command, "--decode", spec.decode, "Decode, 2x4 = 2 groups of 4 ranks [as above]");
  AddTopology(command, "--mixed", spec.mixed, "Workers that do both, likewise [0]");
  add("--listen", spec.listen, "HOST:PORT", "gRPC for clients; port 0 = any [127.0.0.1:0]")
      ->check(process::HostPort());
  add("--http-listen", spec.http_listen, "HOST:PORT", "The OpenAI API, likewise [127.0.0.1:0]")
      ->check(process::HostPort());
  add("--metrics-listen", spec.metrics_listen, "HOST:PORT", "The router's page [127.0.0.1:0]")
      ->check(process::HostPort());
  add("--kv-blocks", spec.kv_blocks, "N", "KV blocks of 64 tokens of a worker [by memory]")
      ->check(WholeNumber(0, kKvBlocksMax));
  add("--sequences-max", spec.sequences_max, "N", "Sequences that a worker runs at a time")
      ->check(WholeNumber(1, kSequencesMaxMax));
  add("--step-tokens-max", spec.step_tokens_max, "N", "Prompt tokens in a step")
      ->check(WholeNumber(1, kStepTokensMaxMax));
  AddGroupOptions(command, spec.group);
  add("--certs", spec.certificates_folder, "DIR", "Of `baleen certs`: TLS on all connections");
  add("--api-keys-file", spec.api_keys_file, "FILE", "Of `baleen keys`: who may call [everybody]");
  add("--drain-seconds", spec.drain_seconds, "N", "To finish requests at the end, to 3600 [10]")
      ->check(WholeNumber(0, 3600));
  add("--ready-seconds", options.ready_seconds, "N", "To come up [60, and 10 for a GB of weights]")
      ->check(WholeNumber(1, kSecondsMax));
  add("--log-level", spec.log_level, "LEVEL", "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}).description(""));
}

void ChooseWorkers(const CLI::App& command, ClusterOptions& options) {
  for (const char* option : {"--prefill", "--decode", "--mixed"}) {
    if (command.count(option) > 0) return;
  }
  options.spec.prefill.groups = options.spec.decode.groups = 1;
}

absl::Status CheckClusterOptions(const ClusterOptions& options) {
  const absl::Status valid = Validate(options.spec);
  return valid.ok() ? CheckExperts(options.spec) : valid;
}

absl::Duration ReadyWithin(const ClusterOptions& options) {
  if (options.ready_seconds) return absl::Seconds(*options.ready_seconds);
  const std::uint64_t reading = WeightBytes(options.spec.model_directory) / kReadBytesPerSecond;
  return std::min(kReadyLeast + absl::Seconds(reading), absl::Duration(absl::Seconds(kSecondsMax)));
}

}  // namespace baleen::cli
