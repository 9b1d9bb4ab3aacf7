#include "tools/cli/commands/up_command.h"

#include <errno.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "observability/process/signals.h"
#include "tools/cli/cluster/signals.h"
#include "tools/cli/session/exit_code.h"

namespace baleen::cli {
namespace {

std::string ReadyText(const RunningCluster& cluster, const std::string& tls_ca_file) {
  const Style style(ColoursOn(STDOUT_FILENO));
  return fmt::format("\n{}\n{}\n  talk to it:  {} chat --router {}{}\n\n",
                     style.Paint(Look::kBold, "The cluster is ready."),
                     RenderTable(AddressRows(cluster, !tls_ca_file.empty()), style),
                     program_invocation_name, cluster[0].ready.at("grpc"),
                     tls_ca_file.empty() ? "" : " --tls-ca " + tls_ca_file);
}

}  // namespace

void AddUpOptions(CLI::App& command, UpOptions& options) {
  AddClusterOptions(command, options.cluster);
  command.add_flag("--json", options.json, "One line with addresses and pids when ready");
  command.add_flag("--die-with-parent", options.die_with_parent,
                   "End at once when the caller does");
  command.parse_complete_callback([&] { ChooseWorkers(command, options.cluster); });
}

std::string ReadyJson(const RunningCluster& cluster) {
  using Json = nlohmann::ordered_json;
  const RunningChild& router = cluster[0];
  Json metrics = Json::array();
  Json workers = Json::array();
  Json groups = Json::array();
  for (const RunningChild& child : cluster) {
    metrics.push_back(child.ready.at("metrics"));
    if (child.spec.kind == ChildKind::kRouter) continue;
    workers.push_back({{"name", child.spec.name},
                       {"role", child.spec.role},
                       {"metrics", child.ready.at("metrics")},
                       {"pid", child.pid}});
    if (child.spec.rank != 0) continue;
    groups.push_back({{"name", GroupNameOf(child.spec)},
                      {"role", child.spec.role},
                      {"ranks", child.spec.ranks},
                      {"leader", child.spec.leader}});
  }
  const Json json = {{"grpc", router.ready.at("grpc")},
                     {"http", router.ready.at("http")},
                     {"metrics", std::move(metrics)},
                     {"workers", std::move(workers)},
                     {"groups", std::move(groups)},
                     {"router",
                      {{"workers", router.ready.at("workers")},
                       {"metrics", router.ready.at("metrics")},
                       {"pid", router.pid}}}};
  return json.dump();
}

int RunUp(const UpOptions& options) {
  BlockSignals();
  if (options.die_with_parent) {
    // The kernel then ends our children in the same way.
    if (!process::DieWithParent(::getppid())) return kExitGood;
  }
  if (const auto valid = CheckClusterOptions(options.cluster); !valid.ok()) {
    return ExitWithUsage(valid);
  }
  auto supervisor_options = MakeSupervisorOptions(options.cluster);
  if (!supervisor_options.ok()) return ExitWithMessage(supervisor_options.status());
  supervisor_options->stop_signals = StopSignals();
  Supervisor* running = nullptr;
  supervisor_options->on_ready = [&options, &running](const RunningCluster& cluster) {
    const std::string ready = options.json
                                  ? ReadyJson(cluster) + "\n"
                                  : ReadyText(cluster, TlsAuthorityOf(options.cluster.spec));
    // A cluster whose addresses nobody has is of no use.
    if (!WriteAll(STDOUT_FILENO, ready)) running->RequestStop();
  };
  auto supervisor = Supervisor::Create(*std::move(supervisor_options), SystemClock());
  if (!supervisor.ok()) return ExitWithMessage(supervisor.status());
  running = supervisor->get();
  return ExitWithMessage(running->Run());
}

}  // namespace baleen::cli
