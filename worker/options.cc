#include "worker/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>

#include "observability/base/status_macros.h"
#include "worker/expert_parallel/placement.h"

namespace baleen::worker {
namespace {

constexpr std::uint32_t kRanksMax = 65'535;
constexpr std::uint32_t kKvBlocksMax = 1u << 30;
constexpr std::uint32_t kSequencesMaxMax = 1024;
constexpr std::uint32_t kStepTokensMaxMax = 16'384;
constexpr std::size_t kRoutersMax = 64;
constexpr std::uint32_t kStepWaitMsMax = 600'000;
constexpr std::size_t kUnixNameBytesMax = 100;  // sockaddr_un holds 108

// Where a group's leader listens.
CLI::Validator LeaderAddress() {
  const auto check = [](const std::string& text) -> std::string {
    constexpr std::string_view kUnix = "unix-abstract:";
    if (!text.starts_with(kUnix)) {
      const absl::Status status = process::CheckHostPort("--group-leader", text, 1);
      return status.ok() ? "" : fmt::format("'{}' is neither host:port nor {}NAME", text, kUnix);
    }
    const std::size_t name = text.size() - kUnix.size();
    if (name >= 1 && name <= kUnixNameBytesMax) return "";
    return fmt::format("'{}' has a name of {} bytes, not 1 to {}", text, name, kUnixNameBytesMax);
  };
  return CLI::Validator(check, "");
}

void DeclareGroup(CLI::App& app, GroupOptions& options, std::string& dispatch,
                  std::uint32_t& step_wait_ms) {
  const auto add = [&app](const char* flag, auto& value, const char* help) {
    return process::AddOption(app, flag, value, help);
  };
  const auto range = [](std::uint32_t least, std::uint32_t most) {
    return process::WholeNumber(least, most);
  };
  add("--ranks", options.ranks, "Ranks of the group, which share the experts")
      ->check(range(1, kGroupRanksMax));
  add("--group-leader", options.leader, "Where rank 0 listens and the other ranks join")
      ->check(LeaderAddress());
  add("--redundant-experts", options.redundant_experts,
      "Replicas of busy experts beyond one of each (rank 0 decides)")
      ->check(range(0, kExpertsMax));
  add("--nodes", options.nodes, "Machines that the group's ranks are on, evenly, in order (rank 0)")
      ->check(range(1, kGroupRanksMax));
  add("--placement", options.placement_file, "Which rank holds which experts at first (rank 0)");
  process::AddSeconds(app, "--rebalance-seconds", options.rebalance,
                      "Move redundant experts to where the load is (rank 0); 0 = never");
  add("--dispatch", dispatch, "How token rows travel to experts: bf16 or fp8")
      ->check(CLI::IsMember({"bf16", "fp8"}));
  add("--micro-batch-rows", options.micro_batch_rows,
      "Overlap a step in two parts from so many tokens of a rank; 0 = never");
  process::AddSeconds(app, "--join-seconds", options.join_max, "For all ranks of the group to come",
                      1);
  add("--step-wait-ms", step_wait_ms, "For a peer, within a step")->check(range(1, kStepWaitMsMax));
}

absl::Status CheckGroup(const WorkerOptions& options) {
  const GroupOptions& group = options.parallel;
  if (options.rank >= group.ranks) {
    return absl::InvalidArgumentError(fmt::format("--rank {} with --ranks {}: a rank is 0 to {}",
                                                  options.rank, group.ranks, group.ranks - 1));
  }
  if (group.ranks > 1 && group.leader.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("--ranks {} without --group-leader: where do they meet?", group.ranks));
  }
  if (group.ranks == 1 && !group.leader.empty()) {
    return absl::InvalidArgumentError("--group-leader without --ranks: of how many is the group?");
  }
  if (group.ranks == 1 && (group.redundant_experts > 0 || !group.placement_file.empty())) {
    return absl::InvalidArgumentError(
        "--redundant-experts and --placement are for a group: --ranks 2 or more");
  }
  return absl::OkStatus();
}

void DeclareInternal(CLI::App& app, WorkerOptions& options) {
  const auto add = [&app](const char* flag, std::string& value, const char* help) {
    process::AddOption(app, flag, value, help)->type_name("FILE");
  };
  add("--internal-cert", options.internal.certificate, "Certificate for routers and ranks, PEM");
  add("--internal-key", options.internal.key, "Its key, PEM");
  add("--internal-ca", options.internal.authority, "Whose certificates to believe, PEM");
  app.add_flag("--insecure-internal", options.insecure_internal,
               "Without certificates beyond this machine, too")
      ->envname(process::EnvironmentNameOf("--insecure-internal"));
}

void Declare(CLI::App& app, WorkerOptions& options, std::string& role, std::string& prefix_cache) {
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
  add("--prefix-cache", prefix_cache,
      "Keep the KV of prompts for those that begin alike: on or off")
      ->check(CLI::IsMember({"on", "off"}));
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
  std::string dispatch = "bf16";
  std::string prefix_cache = "on";
  auto step_wait_ms =
      static_cast<std::uint32_t>(absl::ToInt64Milliseconds(options.parallel.step_wait_max));
  Declare(app, options, role, prefix_cache);
  DeclareGroup(app, options.parallel, dispatch, step_wait_ms);
  DeclareInternal(app, options);
  process::AddProcessOptions(app, options.process);
  BALEEN_RETURN_IF_ERROR(process::Parse(app, argc, argv, options.process));
  if (!options.process.help.empty()) return options;
  options.role = ParseRole(role).value();
  options.prefix_cache = prefix_cache == "on";
  options.parallel.fp8_dispatch = dispatch == "fp8";
  options.parallel.step_wait_max = absl::Milliseconds(step_wait_ms);
  options.process.name = options.WorkerName();
  if (options.routers.size() > kRoutersMax) {
    return absl::InvalidArgumentError(fmt::format("--router: {} addresses, the most are {}",
                                                  options.routers.size(), kRoutersMax));
  }
  BALEEN_RETURN_IF_ERROR(
      security::CheckCertificateFlags("--internal", options.internal, /*with_authority=*/true));
  BALEEN_RETURN_IF_ERROR(CheckGroup(options));
  return options;
}

}  // namespace baleen::worker
