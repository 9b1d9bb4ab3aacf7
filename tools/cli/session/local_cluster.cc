#include "tools/cli/session/local_cluster.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include "observability/base/status_macros.h"
#include "observability/process/command_line.h"
#include "tools/cli/client/probe.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/terminal/process_log.h"

namespace baleen::cli {

void AddClusterOptions(CLI::App& command, ClusterOptions& options) {
  ClusterSpec& spec = options.spec;
  const auto add = [&command](const char* name, auto& value, const char* type,
                              const char* description) {
    return command.add_option(name, value, description)->type_name(type);
  };
  const CLI::Validator workers = WholeNumber(0, kWorkersMax);
  add("--model", spec.model_directory, "DIR", "Directory of the model")->required();
  add("--prefill", spec.prefill, "N", "Prefill workers [1 unless workers are named]")
      ->check(workers);
  add("--decode", spec.decode, "N", "Decode workers [1 unless workers are named]")->check(workers);
  add("--mixed", spec.mixed, "N", "Workers that do both [0]")->check(workers);
  add("--listen", spec.listen, "HOST:PORT", "gRPC for clients; port 0 = any [127.0.0.1:0]")
      ->check(process::HostPort());
  add("--metrics-listen", spec.metrics_listen, "HOST:PORT", "The router's page [127.0.0.1:0]")
      ->check(process::HostPort());
  add("--kv-blocks", spec.kv_blocks, "N", "KV blocks of 64 tokens of a worker [by memory]")
      ->check(WholeNumber(0, kKvBlocksMax));
  add("--sequences-max", spec.sequences_max, "N", "Sequences that a worker runs at a time")
      ->check(WholeNumber(1, kSequencesMaxMax));
  add("--step-tokens-max", spec.step_tokens_max, "N", "Prompt tokens in a step")
      ->check(WholeNumber(1, kStepTokensMaxMax));
  add("--drain-seconds", spec.drain_seconds, "N", "To finish requests at the end, to 3600 [10]")
      ->check(WholeNumber(0, 3600));
  add("--ready-seconds", options.ready_seconds, "N", "To come up, 1 to 86400 [60]")
      ->check(WholeNumber(1, 86400));
  add("--log-level", spec.log_level, "LEVEL", "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}).description(""));
}

void ChooseWorkers(const CLI::App& command, ClusterOptions& options) {
  for (const char* option : {"--prefill", "--decode", "--mixed"}) {
    if (command.count(option) > 0) return;
  }
  options.spec.prefill = options.spec.decode = 1;
}

absl::StatusOr<SupervisorOptions> MakeSupervisorOptions(const ClusterOptions& options) {
  BALEEN_RETURN_IF_ERROR(Validate(options.spec));
  BALEEN_ASSIGN_OR_RETURN(Executables executables, FindExecutables());
  std::size_t width = 0;
  for (const ChildSpec& child : ChildrenOf(options.spec)) {
    width = std::max(width, child.name.size());
  }
  const Style style(ColoursOn(STDERR_FILENO));
  const absl::Duration drain = absl::Seconds(options.spec.drain_seconds);
  return SupervisorOptions{
      .spec = options.spec,
      .router_executable = std::move(executables.router),
      .worker_executable = std::move(executables.worker),
      .limits = {.ready_within = absl::Seconds(options.ready_seconds), .drain = drain},
      .stop_signals = {},
      .answers = ClusterAnswers,
      .on_ready = {},
      .on_log = [width, style](std::string_view process, std::string_view line) {
        WriteAll(STDERR_FILENO, FormatLogLine(process, line, width, style));
      }};
}

TableRows AddressRows(const RunningCluster& cluster) {
  TableRows rows = {{"gRPC", cluster[0].ready.at("grpc")}};
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
