// baleen-worker: one rank. Reads its options, wires the parts together, says where it is, and waits
// to be told to stop.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/metrics.h"
#include "observability/metrics/page.h"
#include "observability/process/run.h"
#include "observability/process/standard_streams.h"
#include "proto/contract/ids.h"
#include "security/grpc/channel_credentials.h"
#include "security/transport.h"
#include "worker/attach/attach_client.h"
#include "worker/attach/discovery.h"
#include "worker/cache/block_pool.h"
#include "worker/cache/cache_feed.h"
#include "worker/device/reference_device.h"
#include "worker/engine/engine.h"
#include "worker/engine/inbox.h"
#include "worker/grammar/grammar_pool.h"
#include "worker/grammar/model_grammars.h"
#include "worker/group_rank.h"
#include "worker/host.h"
#include "worker/kv_budget.h"
#include "worker/kv_transfer/ucx_kv_transfer.h"
#include "worker/model/deepseek_model.h"
#include "worker/model/loading/load_progress.h"
#include "worker/options.h"

namespace baleen::worker {
namespace {

constexpr std::string_view kVersion = BALEEN_VERSION;

// A reservation waits for its prompt's turn on the prefill rank, and a backlog there is no failure.
// Lost peers and withdrawn requests end transfers at once; the lease is for what nobody noticed.
constexpr absl::Duration kTransferLease = absl::Seconds(120);

// The parts of a rank, in the order in which they need each other. They go in the reverse order:
// engine, data plane, memory.
struct Rank {
  const std::uint64_t incarnation = contract::RandomNonZero();
  metrics::Registry registry;
  metrics::WorkerMetrics metrics{registry, {.version = kVersion, .component = "worker"}};
  std::unique_ptr<metrics::Page> page;
  std::shared_ptr<security::CertificateStore> certificates;  // of the inside; null: plaintext
  std::unique_ptr<Device> device = MakeReferenceDevice();
  std::unique_ptr<DeepSeekModel> model;
  std::unique_ptr<CacheFeed> cache_feed;  // none without a prefix cache
  std::unique_ptr<BlockPool> pool;
  Inbox inbox{InboxLimits{}};
  std::unique_ptr<ModelGrammars> grammar_compiler;
  std::unique_ptr<GrammarPool> grammars;
  std::unique_ptr<UcxKvTransfer> transfer;  // none on a mixed rank
  std::unique_ptr<StaticDiscovery> discovery;
  std::unique_ptr<AttachClient> attach;
  std::unique_ptr<GroupRank> group;  // none on a rank that holds all experts
  std::unique_ptr<Engine> engine;
};

SchedulerLimits SchedulerLimitsOf(const WorkerOptions& options) {
  return {.sequences_max = options.sequences_max, .prefill_tokens_max = options.step_tokens_max};
}

// The weights; on a rank of a group the share that the leader gives it.
absl::Status LoadWeights(const WorkerOptions& options, Rank& rank) {
  ModelOptions model{
      .directory = options.model_directory,
      .limits = StepLimitsFor(SchedulerLimitsOf(options)),
      .dispatch = options.parallel.fp8_dispatch ? DispatchFormat::kFp8 : DispatchFormat::kBf16};
  BALEEN_ASSIGN_OR_RETURN(std::unique_ptr<ModelDirectory> directory, ModelDirectory::Open(model));
  if (options.parallel.ranks > 1) {
    BALEEN_ASSIGN_OR_RETURN(rank.group, GroupRank::Join(options, *directory, model.limits,
                                                        {.incarnation = rank.incarnation,
                                                         .registry = rank.registry,
                                                         .certificates = rank.certificates}));
    BALEEN_ASSIGN_OR_RETURN(model.shard, rank.group->AwaitShard());
  }
  model.progress = ShowLoadProgress(SystemClock());
  BALEEN_ASSIGN_OR_RETURN(rank.model,
                          DeepSeekModel::Load(std::move(directory), model, *rank.device));
  if (rank.group) rank.group->Run(*rank.model, rank.inbox);
  return absl::OkStatus();
}

absl::Status LoadModel(const WorkerOptions& options, Rank& rank) {
  BALEEN_RETURN_IF_ERROR(LoadWeights(options, rank));
  const ModelInfo& info = rank.model->info();
  rank.metrics.checkpoint_bytes.Set(static_cast<double>(info.checkpoint_bytes));
  BALEEN_ASSIGN_OR_RETURN(const std::uint32_t blocks,
                          KvBlocksFor({.block_bytes = info.kv_block_bytes,
                                       .context_tokens = info.context_tokens,
                                       .sequences_max = options.sequences_max,
                                       .blocks_requested = options.kv_blocks,
                                       .memory_available_bytes = AvailableMemoryBytes()}));
  if (options.prefix_cache) {
    rank.cache_feed = std::make_unique<CacheFeed>(CacheFeed::Options{.blocks = blocks});
  }
  BALEEN_ASSIGN_OR_RETURN(rank.pool, BlockPool::Create({.blocks = blocks,
                                                        .block_bytes = info.kv_block_bytes,
                                                        .feed = rank.cache_feed.get()}));
  log::Info("model loaded", {{"model", info.name},
                             {"digest", info.digest},
                             {"context_tokens", info.context_tokens},
                             {"kv_blocks", blocks},
                             {"kv_bytes", blocks * info.kv_block_bytes}});
  if (std::uint64_t{blocks} * contract::kBlockTokens < info.context_tokens) {
    log::Warning("KV cache is smaller than the model's context: longer requests are refused",
                 {{"kv_tokens", std::uint64_t{blocks} * contract::kBlockTokens},
                  {"context_tokens", info.context_tokens}});
  }
  return absl::OkStatus();
}

absl::Status OpenDataPlane(const WorkerOptions& options, Rank& rank) {
  if (options.role == Role::kMixed) return absl::OkStatus();
  TransferLimits limits{.block_bytes = rank.pool->block_bytes(), .lease = kTransferLease};
  // Those of running sequences, and as many again that were given up and have not had their last
  // event.
  limits.transfers_max = 2 * options.sequences_max;
  BALEEN_ASSIGN_OR_RETURN(
      rank.transfer,
      UcxKvTransfer::Create({.limits = limits, .wake = [&inbox = rank.inbox] { inbox.Wake(); }}));
  return absl::OkStatus();
}

absl::Status OpenTransport(const WorkerOptions& options, Rank& rank) {
  const auto check = [&options](std::string_view flag, const std::string& address) {
    return security::CheckInternal({.flag = flag,
                                    .address = address,
                                    .has_certificates = !options.internal.certificate.empty(),
                                    .insecure_allowed = options.insecure_internal});
  };
  for (const std::string& router : options.routers) {
    BALEEN_RETURN_IF_ERROR(check("--router", router));
  }
  if (!options.parallel.leader.empty()) {
    BALEEN_RETURN_IF_ERROR(check("--group-leader", options.parallel.leader));
  }
  BALEEN_ASSIGN_OR_RETURN(rank.certificates,
                          security::OpenIfGiven(options.internal, SystemClock()));
  if (rank.certificates == nullptr) return absl::OkStatus();
  return security::OwnIdentity(*rank.certificates->Current(), security::Role::kWorker).status();
}

// For formats of replies; the vocabulary is read while the rank goes on to start.
void OpenGrammars(const WorkerOptions& options, Rank& rank) {
  const ModelInfo& info = rank.model->info();
  rank.grammar_compiler = std::make_unique<ModelGrammars>(ModelGrammarsOptions{
      .model_directory = options.model_directory,
      .vocabulary = {.size = info.vocabulary_size, .eos_token_ids = info.eos_token_ids}});
  rank.grammars = std::make_unique<GrammarPool>(
      GrammarPoolOptions{.wake = [&inbox = rank.inbox] { inbox.Wake(); }}, SystemClock(),
      *rank.grammar_compiler);
}

absl::Status Build(const WorkerOptions& options, Rank& rank) {
  BALEEN_RETURN_IF_ERROR(CheckCpu());
  BALEEN_RETURN_IF_ERROR(OpenTransport(options, rank));
  BALEEN_RETURN_IF_ERROR(LoadModel(options, rank));
  OpenGrammars(options, rank);
  BALEEN_RETURN_IF_ERROR(OpenDataPlane(options, rank));
  BALEEN_ASSIGN_OR_RETURN(rank.page,
                          metrics::Page::Serve(rank.registry, options.process.metrics_listen));
  rank.discovery = std::make_unique<StaticDiscovery>(options.routers);
  rank.attach = std::make_unique<AttachClient>(
      AttachOptions{.link = {.stream = {.certificates = rank.certificates}}}, *rank.discovery,
      rank.inbox, rank.metrics, rank.cache_feed.get());
  rank.engine = std::make_unique<Engine>(
      EngineOptions{.role = options.role,
                    .scheduler = SchedulerLimitsOf(options),
                    .prefix_cache = options.prefix_cache,
                    .lockstep = {.micro_batch_rows = options.parallel.micro_batch_rows}},
      EngineParts{.clock = SystemClock(),
                  .model = *rank.model,
                  .blocks = *rank.pool,
                  .transfer = rank.transfer.get(),
                  .group = rank.group ? &rank.group->group() : nullptr,
                  .inbox = rank.inbox,
                  .sink = *rank.attach,
                  .metrics = rank.metrics,
                  .cache_feed = rank.cache_feed.get(),
                  .grammars = rank.grammars.get()});
  return absl::OkStatus();
}

WorkerIdentity IdentityOf(const WorkerOptions& options, const Rank& rank) {
  return {.name = options.WorkerName(),
          .incarnation = rank.incarnation,
          .role = options.role,
          .group = options.group,
          .rank = options.rank,
          .model = rank.model->info(),
          .model_directory = options.model_directory,
          .kv_blocks_total = rank.pool->total(),
          .sequences_max = options.sequences_max,
          .step_tokens_max = options.step_tokens_max,
          .data_plane_address = rank.transfer ? rank.transfer->LocalAddress() : std::string(),
          .metrics_address = rank.page->address()};
}

absl::Status PrintReady(const WorkerOptions& options, const Rank& rank) {
  const nlohmann::ordered_json line = {{"worker", options.WorkerName()},
                                       {"metrics", rank.page->address()}};
  return process::PrintToStandardOutput(line.dump() + "\n");
}

void Drain(const WorkerOptions& options, Rank& rank) {
  log::Info("draining", {{"seconds_max", absl::ToDoubleSeconds(options.process.drain)}});
  (void)rank.inbox.Push(DrainCommand{});  // always taken
  const auto idle = [&rank] {
    const LoadReport load = rank.engine->load();
    return load.draining && load.sequences_running + load.sequences_waiting == 0 &&
           rank.engine->may_leave();
  };
  if (!process::AwaitIdle(options.process.drain, idle)) {
    log::Warning("stopping with requests unfinished",
                 {{"running", rank.engine->load().sequences_running},
                  {"waiting", rank.engine->load().sequences_waiting}});
  }
}

absl::Status ServeUntilStopped(const WorkerOptions& options) {
  Rank rank;
  BALEEN_RETURN_IF_ERROR(Build(options, rank));
  std::jthread engine([&rank](std::stop_token stop) { rank.engine->Run(stop); });
  if (rank.group) BALEEN_RETURN_IF_ERROR(rank.group->AwaitFormed());
  BALEEN_RETURN_IF_ERROR(PrintReady(options, rank));
  rank.attach->Start(IdentityOf(options, rank), [&rank] { return rank.engine->load(); });
  process::AwaitStop();
  Drain(options, rank);
  engine.request_stop();
  engine.join();
  rank.attach->Stop();  // after the engine: its last words are on their way
  return rank.group ? rank.group->failure() : absl::OkStatus();
}

// CANCELLED: told to stop before it was ready, which is an end in order.
absl::Status Serve(const WorkerOptions& options) {
  absl::Status status = ServeUntilStopped(options);
  return absl::IsCancelled(status) ? absl::OkStatus() : status;
}

}  // namespace
}  // namespace baleen::worker

int main(int argc, char** argv) {
  baleen::process::OpenStandardStreams();
  return baleen::process::Run<baleen::worker::WorkerOptions>(
      baleen::worker::ParseOptions(argc, argv), baleen::worker::Serve);
}
