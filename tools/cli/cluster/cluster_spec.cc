#include "tools/cli/cluster/cluster_spec.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "observability/base/check.h"

namespace baleen::cli {
namespace {

constexpr std::array<std::string_view, 3> kRouterKeys = {"grpc", "workers", "metrics"};
constexpr std::array<std::string_view, 2> kWorkerKeys = {"worker", "metrics"};

std::span<const std::string_view> KeysOf(ChildKind kind) {
  if (kind == ChildKind::kRouter) return kRouterKeys;
  return kWorkerKeys;
}

void AppendWorkers(std::string_view role, std::uint32_t count, std::vector<ChildSpec>& children) {
  for (std::uint32_t group = 0; group < count; ++group) {
    children.push_back({.kind = ChildKind::kWorker,
                        .name = fmt::format("{}-{}.0", role, group),
                        .role = std::string(role),
                        .group = group});
  }
}

using Arguments = std::vector<std::string>;

void Append(std::string_view option, std::string_view value, Arguments& arguments) {
  arguments.emplace_back(option);
  arguments.emplace_back(value);
}

void AppendUnlessZero(std::string_view option, std::uint32_t value, Arguments& arguments) {
  if (value != 0) Append(option, std::to_string(value), arguments);
}

}  // namespace

absl::Status Validate(const ClusterSpec& spec) {
  if (spec.model_directory.empty()) {
    return absl::InvalidArgumentError("--model is missing: give the directory of a model");
  }
  const std::uint64_t workers = std::uint64_t{spec.prefill} + spec.decode + spec.mixed;
  if (workers > kWorkersMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} workers: --prefill, --decode and --mixed together may be at most {}",
                    workers, kWorkersMax));
  }
  const bool split = spec.prefill > 0 && spec.decode > 0;
  if (!split && spec.mixed == 0) {
    return absl::InvalidArgumentError(fmt::format(
        "--prefill {} --decode {} --mixed 0 can not answer: at least one prefill and one decode "
        "worker, or one mixed worker, are needed",
        spec.prefill, spec.decode));
  }
  return absl::OkStatus();
}

std::vector<ChildSpec> ChildrenOf(const ClusterSpec& spec) {
  std::vector<ChildSpec> children = {{.kind = ChildKind::kRouter, .name = "router"}};
  AppendWorkers("prefill", spec.prefill, children);
  AppendWorkers("decode", spec.decode, children);
  AppendWorkers("mixed", spec.mixed, children);
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
    Append("--worker-listen", own ? own->at("workers") : "127.0.0.1:0", arguments);
    Append("--metrics-listen", own ? own->at("metrics") : spec.metrics_listen, arguments);
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
