#include "tools/cli/session/local_generation.h"

#include <functional>
#include <optional>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/metrics.h"
#include "proto/contract/ids.h"
#include "router/server/request/models.h"
#include "router/server/request/prompt.h"
#include "router/server/request/reply.h"
#include "router/server/request/validate.h"
#include "tools/cli/terminal/style.h"
#include "worker/cache/block_pool.h"
#include "worker/device/reference_device.h"
#include "worker/engine/engine.h"
#include "worker/host.h"
#include "worker/kv_budget.h"
#include "worker/model/deepseek_model.h"

namespace baleen::cli {
namespace {

// One request, so one sequence.
constexpr worker::SchedulerLimits kLimits{.sequences_max = 1};

struct LocalRequest {
  worker::StartCommand start;
  router::ReplyOptions reply;
};

// The request as a router reads, checks and completes it: the same functions, so the same errors
// and defaults.
absl::StatusOr<LocalRequest> Read(const v1::GenerateRequest& message,
                                  const router::ModelText& model, const worker::ModelInfo& info,
                                  absl::Duration within) {
  BALEEN_ASSIGN_OR_RETURN(router::GenerationRequest request,
                          router::ReadGenerateRequest(message.SerializeAsString()));
  BALEEN_ASSIGN_OR_RETURN(
      router::Prompt prompt,
      router::MakePrompt(model, std::move(request.prompt), SystemClock().Wall()));
  router::ModelIdentity identity{.name = info.name,
                                 .context_tokens = info.context_tokens,
                                 .vocabulary_size = info.vocabulary_size,
                                 .eos_token_ids = info.eos_token_ids};
  BALEEN_RETURN_IF_ERROR(router::CheckFit(request, prompt.ids, identity));
  LocalRequest local;
  local.reply = {.model = &model,
                 .identity = std::move(identity),
                 .sampling = request.sampling,
                 .ignore_eos = request.ignore_eos,
                 .prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size())};
  local.start = {
      .key = {.id = {.router = 1, .number = 1}, .attempt = 1},
      .leg = worker::Leg::kWhole,
      .sampling = {.temperature = request.sampling.temperature,
                   .top_k = request.sampling.top_k,
                   .top_p = request.sampling.top_p,
                   .seed = request.sampling.seed,
                   .logprobs = request.sampling.logprobs},
      .tokens_max = router::TokensMax(request.tokens_max, prompt.ids.size(), info.context_tokens),
      .ignore_eos = request.ignore_eos,
      .time_left = within};
  local.start.prompt = std::move(prompt.ids);
  return local;
}

// Turns what the engine says into the chunks of a reply, by the router's own builder.
class ReplySink final : public worker::OutputSink {
 public:
  using OnChunk = std::function<void(const v1::GenerateChunk&)>;

  ReplySink(router::ReplyOptions options, const OnChunk& on_chunk)
      : builder_(std::move(options)), on_chunk_(on_chunk), begun_(SystemClock().Monotonic()) {}

  void Deliver(worker::LinkId, worker::StepReport report) override {
    for (worker::TokenOutput& output : report.tokens) OnToken(output);
    for (const worker::EndedOutput& output : report.ended) OnEnd(output);
  }

  // OK once it has ended well.
  const std::optional<absl::Status>& ended() const { return ended_; }

 private:
  void OnToken(worker::TokenOutput& output) {
    if (builder_.tokens() == 0) times_.to_first_token = SystemClock().Monotonic() - begun_;
    router::ReplyToken token{.id = output.token.token};
    if (output.with_logprobs) {
      token.logprobs = {.sampled = output.token.logprob, .top = std::move(output.token.top)};
    }
    builder_.Add(std::move(token));
    Send();
  }

  void OnEnd(const worker::EndedOutput& output) {
    ended_ = output.status;
    if (!output.status.ok()) return;
    times_.total = SystemClock().Monotonic() - begun_;
    const bool stopped = output.reason == worker::EndReason::kStop;
    builder_.Finish(
        {.status = absl::OkStatus(),
         .finish = stopped ? router::FinishReason::kStop : router::FinishReason::kLength,
         .tokens = output.tokens},
        times_);
    Send();
  }

  void Send() {
    v1::GenerateChunk chunk;
    BALEEN_CHECK(chunk.ParseFromString(builder_.Take()), "it was serialized a moment ago");
    on_chunk_(chunk);
  }

  router::ReplyBuilder builder_;
  const OnChunk& on_chunk_;
  const absl::Duration begun_;
  router::ReplyTimes times_;
  std::optional<absl::Status> ended_;
};

// Runs one request through an engine of its own.
absl::Status RunEngine(worker::StartCommand start, worker::Model& model, ReplySink& sink) {
  const worker::ModelInfo& info = model.info();
  // A context of at most 163,840 tokens: fits 32 bits. A prompt and a reply of one token need no
  // block for the reply.
  const auto blocks_needed = static_cast<std::uint32_t>(worker::BlocksNeeded(start));
  BALEEN_ASSIGN_OR_RETURN(
      const std::uint32_t blocks,
      worker::KvBlocksFor({.block_bytes = info.kv_block_bytes,
                           .context_tokens = info.context_tokens,
                           .sequences_max = 1,
                           .blocks_requested = blocks_needed,
                           .memory_available_bytes = worker::AvailableMemoryBytes()}));
  BALEEN_ASSIGN_OR_RETURN(
      const auto pool,
      worker::BlockPool::Create({.blocks = blocks, .block_bytes = info.kv_block_bytes}));
  metrics::Registry registry;
  const metrics::WorkerMetrics metrics(registry,
                                       {.version = BALEEN_VERSION, .component = "worker"});
  worker::Inbox inbox{worker::InboxLimits{}};
  worker::Engine engine({.role = worker::Role::kMixed, .scheduler = kLimits},
                        {.clock = SystemClock(),
                         .model = model,
                         .blocks = *pool,
                         .inbox = inbox,
                         .sink = sink,
                         .metrics = metrics});
  BALEEN_RETURN_IF_ERROR(inbox.Push(std::move(start)));
  while (!sink.ended()) {
    BALEEN_RETURN_IF_ERROR(StandardOutputStatus());  // nobody would see the rest
    if (!engine.RunOnce() && !sink.ended()) {
      return absl::InternalError("the engine has nothing to do for a request that has not ended");
    }
  }
  return *sink.ended();
}

}  // namespace

absl::Status GenerateLocally(const LocalGeneration& generation,
                             const std::function<void(const v1::GenerateChunk&)>& on_chunk) {
  BALEEN_RETURN_IF_ERROR(worker::CheckCpu());
  BALEEN_ASSIGN_OR_RETURN(const router::Models models,
                          router::Models::Load({generation.directory}));
  BALEEN_ASSIGN_OR_RETURN(const router::ModelText* text, models.Find(generation.request.model()));
  const auto device = worker::MakeReferenceDevice();
  BALEEN_ASSIGN_OR_RETURN(
      const auto model,
      worker::DeepSeekModel::Load(
          {.directory = generation.directory, .limits = worker::StepLimitsFor(kLimits)}, *device));
  BALEEN_ASSIGN_OR_RETURN(LocalRequest request,
                          Read(generation.request, *text, model->info(), generation.within));
  ReplySink sink(std::move(request.reply), on_chunk);
  return RunEngine(std::move(request.start), *model, sink);
}

}  // namespace baleen::cli
