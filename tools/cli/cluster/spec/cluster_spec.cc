#include "tools/cli/cluster/spec/cluster_spec.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "observability/base/check.h"
#include "tools/cli/cluster/spec/certificate_paths.h"

namespace baleen::cli {
namespace {

constexpr std::array<std::string_view, 4> kRouterKeys = {"grpc", "http", "workers", "metrics"};
constexpr std::array<std::string_view, 2> kWorkerKeys = {"worker", "metrics"};

std::span<const std::string_view> KeysOf(ChildKind kind) {
  if (kind == ChildKind::kRouter) return kRouterKeys;
  return kWorkerKeys;
}

using Arguments = std::vector<std::string>;

void Append(std::string_view option, std::string_view value, Arguments& arguments) {
  arguments.emplace_back(option);
  arguments.emplace_back(value);
}

void AppendUnlessZero(std::string_view option, std::uint32_t value, Arguments& arguments) {
  if (value != 0) Append(option, std::to_string(value), arguments);
}

void AppendIfGiven(std::string_view option, std::optional<std::uint32_t> value,
                   Arguments& arguments) {
  if (value) Append(option, std::to_string(*value), arguments);
}

void AppendGroup(const GroupSpec& group, const ChildSpec& child, Arguments& arguments) {
  if (!group.dispatch.empty()) Append("--dispatch", group.dispatch, arguments);
  if (child.leader.empty()) return;
  Append("--ranks", std::to_string(child.ranks), arguments);
  Append("--group-leader", child.leader, arguments);
  AppendUnlessZero("--redundant-experts", group.redundant_experts, arguments);
  if (child.rank == 0 && !group.placement_file.empty()) {
    Append("--placement", group.placement_file, arguments);
  }
  AppendIfGiven("--micro-batch-rows", group.micro_batch_rows, arguments);
  AppendIfGiven("--rebalance-seconds", group.rebalance_seconds, arguments);
  AppendIfGiven("--join-seconds", group.join_seconds, arguments);
  AppendIfGiven("--step-wait-ms", group.step_wait_ms, arguments);
}

void AppendInternal(const std::string& folder, std::string_view name, Arguments& arguments) {
  if (folder.empty()) return;
  Append("--internal-cert", CertificatePath(folder, name), arguments);
  Append("--internal-key", KeyPath(folder, name), arguments);
  Append("--internal-ca", CertificatePath(folder, kAuthorityName), arguments);
}

void AppendPublic(const ClusterSpec& spec, Arguments& arguments) {
  const std::string& folder = spec.certificates_folder;
  if (!folder.empty()) {
    Append("--tls-cert", CertificatePath(folder, kPublicName), arguments);
    Append("--tls-key", KeyPath(folder, kPublicName), arguments);
  }
  if (!spec.api_keys_file.empty()) Append("--api-keys-file", spec.api_keys_file, arguments);
}

// What only groups of several ranks can use is refused without them: a typing error in a topology
// would pass for a cluster that has it.
absl::Status ValidateGroups(const ClusterSpec& spec) {
  std::uint32_t widest = 1;
  for (const auto& [role, topology] : TopologiesOf(spec)) {
    if (topology.groups == 0 || topology.ranks == 1) continue;
    if (widest > 1 && widest != topology.ranks && !spec.group.placement_file.empty()) {
      return absl::InvalidArgumentError(
          fmt::format("--placement is for groups of one width, not of {} and of {} ranks", widest,
                      topology.ranks));
    }
    widest = topology.ranks;
  }
  const bool placed = spec.group.redundant_experts > 0 || !spec.group.placement_file.empty();
  if (widest == 1 && placed) {
    return absl::InvalidArgumentError(
        "--redundant-experts and --placement are for groups of several ranks, for example "
        "--decode 1x4");
  }
  return absl::OkStatus();
}

}  // namespace

std::array<RoleTopology, 3> TopologiesOf(const ClusterSpec& spec) {
  return {{{"prefill", spec.prefill}, {"decode", spec.decode}, {"mixed", spec.mixed}}};
}

absl::Status Validate(const ClusterSpec& spec) {
  if (spec.model_directory.empty()) {
    return absl::InvalidArgumentError("--model is missing: give the directory of a model");
  }
  std::uint64_t workers = 0;
  for (const auto& [role, topology] : TopologiesOf(spec)) workers += topology.workers();
  if (workers > kWorkersMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} workers: --prefill, --decode and --mixed together may be at most {}",
                    workers, kWorkersMax));
  }
  const bool split = spec.prefill.groups > 0 && spec.decode.groups > 0;
  if (!split && spec.mixed.groups == 0) {
    return absl::InvalidArgumentError(fmt::format(
        "--prefill {} --decode {} --mixed 0 can not answer: at least one prefill and one decode "
        "worker, or one mixed worker, are needed",
        ToString(spec.prefill), ToString(spec.decode)));
  }
  return ValidateGroups(spec);
}

std::string TlsAuthorityOf(const ClusterSpec& spec) {
  if (spec.certificates_folder.empty()) return "";
  return CertificatePath(spec.certificates_folder, kAuthorityName);
}

std::string GroupNameOf(const ChildSpec& child) {
  return fmt::format("{}-{}", child.role, child.group);
}

std::vector<ChildSpec> ChildrenOf(const ClusterSpec& spec) {
  std::vector<ChildSpec> children = {{.kind = ChildKind::kRouter, .name = "router"}};
  for (const auto& [role, topology] : TopologiesOf(spec)) {
    for (std::uint32_t group = 0; group < topology.groups; ++group) {
      for (std::uint32_t rank = 0; rank < topology.ranks; ++rank) {
        ChildSpec child{
            .role = std::string(role), .group = group, .rank = rank, .ranks = topology.ranks};
        child.name = fmt::format("{}.{}", GroupNameOf(child), rank);
        if (child.ranks > 1) {
          child.leader = fmt::format("{}-{}", spec.group.meeting_point, GroupNameOf(child));
        }
        children.push_back(std::move(child));
      }
    }
  }
  return children;
}

absl::StatusOr<ReadyLine> ParseReadyLine(ChildKind kind, std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  ReadyLine ready;
  for (const std::string_view key : KeysOf(kind)) {
    const auto found = json.is_object() ? json.find(std::string(key)) : json.end();
    if (found == json.end() || !found->is_string()) {
      return absl::InvalidArgumentError(
          fmt::format("its ready line has no text '{}': {}", key, line.substr(0, 200)));
    }
    ready.emplace(key, found->get<std::string>());
  }
  return ready;
}

std::vector<std::string> ArgumentsOf(const ClusterSpec& spec, const ChildSpec& child,
                                     const ReadyLine* router, const ReadyLine* own) {
  Arguments arguments;
  Append("--model", spec.model_directory, arguments);
  if (child.kind == ChildKind::kRouter) {
    Append("--listen", own ? own->at("grpc") : spec.listen, arguments);
    Append("--http-listen", own ? own->at("http") : spec.http_listen, arguments);
    Append("--worker-listen", own ? own->at("workers") : "127.0.0.1:0", arguments);
    Append("--metrics-listen", own ? own->at("metrics") : spec.metrics_listen, arguments);
    AppendPublic(spec, arguments);
    AppendInternal(spec.certificates_folder, kRouterName, arguments);
  } else {
    BALEEN_CHECK(router != nullptr, "workers start after the router");
    Append("--role", child.role, arguments);
    Append("--group", std::to_string(child.group), arguments);
    Append("--rank", std::to_string(child.rank), arguments);
    Append("--router", router->at("workers"), arguments);
    Append("--metrics-listen", own ? own->at("metrics") : "127.0.0.1:0", arguments);
    AppendUnlessZero("--kv-blocks", spec.kv_blocks, arguments);
    AppendUnlessZero("--sequences-max", spec.sequences_max, arguments);
    AppendUnlessZero("--step-tokens-max", spec.step_tokens_max, arguments);
    AppendGroup(spec.group, child, arguments);
    AppendInternal(spec.certificates_folder, kWorkerName, arguments);
  }
  Append("--log-format", spec.log_format, arguments);
  Append("--log-level", spec.log_level, arguments);
  Append("--drain-seconds", std::to_string(spec.drain_seconds), arguments);
  arguments.emplace_back("--die-with-parent");
  return arguments;
}

std::vector<std::string> EnvironmentOf(const ChildSpec& child) {
  const bool chosen =
      std::getenv("UCX_NET_DEVICES") != nullptr || std::getenv("UCX_TLS") != nullptr;
  if (child.kind == ChildKind::kRouter || chosen) return {};
  return {"UCX_NET_DEVICES=lo"};
}

}  // namespace baleen::cli
