#include "worker/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

constexpr std::uint32_t kRanksMax = 65'535;
constexpr std::uint32_t kKvBlocksMax = 1u << 30;
constexpr std::uint32_t kSequencesMaxMax = 1024;
constexpr std::uint32_t kStepTokensMaxMax = 16'384;
constexpr std::size_t kRoutersMax = 64;

void Declare(CLI::App& app, WorkerOptions& options, std::string& role) {
  const auto add = [&app](const char* flag, auto& value, const char* help) {
    return process::AddOption(app, flag, value, help);
  };
  const auto range = [](std::uint32_t least, std::uint32_t most) {
    return process::WholeNumber(least, most);
  };
  add("--model", options.model_directory, "Model directory (Hugging Face layout)")->required();
  add("--role", role, "prefill, decode or mixed")
      ->check(CLI::IsMember({"prefill", "decode", "mixed"}));
  add("--group", options.group, "Group that this rank is part of")->check(range(0, kRanksMax));
  add("--rank", options.rank, "Rank within the group")->check(range(0, kRanksMax));
  add("--router", options.routers, "Routers to attach to, host:port[,host:port]")
      ->check(process::HostPort(1))
      ->required()
      ->delimiter(',');
  add("--kv-blocks", options.kv_blocks, "KV blocks of 64 tokens; 0 = from the memory there is")
      ->check(range(0, kKvBlocksMax));
  add("--sequences-max", options.sequences_max, "Sequences that hold KV at a time")
      ->check(range(1, kSequencesMaxMax));
  add("--step-tokens-max", options.step_tokens_max, "Prompt tokens computed in one step")
      ->check(range(1, kStepTokensMaxMax));
  process::AddProcessOptions(app, options.process);
}

}  // namespace

std::string WorkerOptions::WorkerName() const {
  return fmt::format("{}-{}.{}", NameOf(role), group, rank);
}

absl::StatusOr<WorkerOptions> ParseOptions(int argc, const char* const* argv) {
  WorkerOptions options;
  std::string role(NameOf(options.role));
  CLI::App app("baleen-worker: one rank of a Baleen cluster. Attaches to routers and computes.",
               "baleen-worker");
  Declare(app, options, role);
  BALEEN_RETURN_IF_ERROR(process::Parse(app, argc, argv, options.process));
  if (!options.process.help.empty()) return options;
  options.role = ParseRole(role).value();
  options.process.name = options.WorkerName();
  if (options.routers.size() > kRoutersMax) {
    return absl::InvalidArgumentError(fmt::format("--router: {} addresses, the most are {}",
                                                  options.routers.size(), kRoutersMax));
  }
  return options;
}

}  // namespace baleen::worker
