#include "tools/cli/session/local_cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "tools/cli/client/probe.h"
#include "tools/cli/terminal/process_log.h"

namespace baleen::cli {

absl::StatusOr<SupervisorOptions> MakeSupervisorOptions(const ClusterOptions& options) {
  BALEEN_RETURN_IF_ERROR(CheckClusterOptions(options));
  BALEEN_ASSIGN_OR_RETURN(Executables executables, FindExecutables());
  const absl::Duration ready_within = ReadyWithin(options);
  ClusterSpec spec = options.spec;
  // Random, and the same over the lives of a child: ranks find their leader again.
  spec.group.meeting_point = fmt::format("unix-abstract:baleen-{:x}", contract::RandomNonZero());
  // Less than the cluster's own limit: the leader's error says which rank is missing.
  const absl::Duration join_within = std::max(ready_within * 0.9, absl::Seconds(1));
  spec.group.join_seconds = static_cast<std::uint32_t>(absl::ToInt64Seconds(join_within));
  std::size_t width = 0;
  for (const ChildSpec& child : ChildrenOf(spec)) {
    width = std::max(width, child.name.size());
  }
  const Style style(ColoursOn(STDERR_FILENO));
  const absl::Duration drain = absl::Seconds(options.spec.drain_seconds);
  return SupervisorOptions{
      .spec = std::move(spec),
      .router_executable = std::move(executables.router),
      .worker_executable = std::move(executables.worker),
      .limits = {.ready_within = ready_within, .drain = drain},
      .stop_signals = {},
      .answers = [authority = TlsAuthorityOf(options.spec)](
                     const RunningCluster& cluster) { return ClusterAnswers(cluster, authority); },
      .on_ready = {},
      .on_log =
          [width, style](std::string_view process, std::string_view line) {
            WriteAll(STDERR_FILENO, FormatLogLine(process, line, width, style));
          }};
}

TableRows AddressRows(const RunningCluster& cluster, bool tls) {
  TableRows rows = {{"gRPC", cluster[0].ready.at("grpc")},
                    {"OpenAI API", fmt::format("{}://{}/v1", tls ? "https" : "http",
                                               cluster[0].ready.at("http"))}};
  for (const RunningChild& child : cluster) {
    if (child.spec.leader.empty() || child.spec.rank != 0) continue;
    rows.emplace_back(fmt::format("leader of {}", GroupNameOf(child.spec)),
                      fmt::format("{}, {} ranks", child.spec.leader, child.spec.ranks));
  }
  for (const RunningChild& child : cluster) {
    rows.emplace_back(fmt::format("metrics of {}", child.spec.name),
                      fmt::format("http://{}/metrics", child.ready.at("metrics")));
  }
  return rows;
}

absl::StatusOr<std::unique_ptr<LocalCluster>> LocalCluster::Start(const ClusterOptions& options) {
  std::unique_ptr<LocalCluster> cluster(new LocalCluster());
  BALEEN_ASSIGN_OR_RETURN(SupervisorOptions supervisor_options, MakeSupervisorOptions(options));
  supervisor_options.tells_starts = false;
  supervisor_options.on_log = [raw = cluster.get(), log = std::move(supervisor_options.on_log)](
                                  std::string_view process, std::string_view line) {
    if (!raw->stopping_) log(process, line);
  };
  supervisor_options.on_ready = [raw = cluster.get()](const RunningCluster& running) {
    std::lock_guard lock(raw->mutex_);
    raw->ready_ = running;
    raw->changed_.notify_all();
  };
  BALEEN_ASSIGN_OR_RETURN(cluster->supervisor_,
                          Supervisor::Create(std::move(supervisor_options), SystemClock()));
  // The children live and die with this thread.
  cluster->thread_ = std::thread([raw = cluster.get()] {
    const absl::Status status = raw->supervisor_->Run();
    std::lock_guard lock(raw->mutex_);
    raw->finished_ = status;
    raw->changed_.notify_all();
  });
  return cluster;
}

LocalCluster::~LocalCluster() {
  if (thread_.joinable()) Stop().IgnoreError();  // who wants to know calls Stop
}

absl::Status LocalCluster::Stop() {
  stopping_ = true;
  supervisor_->RequestStop();
  thread_.join();  // bounded: drain, then kill, then give up
  std::lock_guard lock(mutex_);
  return *finished_;
}

absl::StatusOr<RunningCluster> LocalCluster::WaitUntilReady() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ready_.has_value() || finished_.has_value(); });
  if (finished_ && !finished_->ok()) return *finished_;
  if (finished_) return absl::CancelledError("stopped before it was ready");
  return *ready_;
}

}  // namespace baleen::cli
