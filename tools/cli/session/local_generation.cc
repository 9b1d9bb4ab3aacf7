#include "tools/cli/session/local_generation.h"

#include <functional>
#include <optional>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/metrics.h"
#include "proto/contract/ids.h"
#include "router/server/chunk.h"
#include "router/server/generation/choice_reply.h"
#include "router/server/request/models.h"
#include "router/server/request/prompt.h"
#include "router/server/request/read_request.h"
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
  router::ChoiceOptions reply;
  router::ReplyTotals totals;
};

// The request as a router reads, checks and completes it: the same functions, so the same errors
// and defaults.
absl::StatusOr<LocalRequest> Read(const v1::GenerateRequest& message,
                                  const router::ModelText& model, const worker::ModelInfo& info,
                                  absl::Duration within) {
  BALEEN_ASSIGN_OR_RETURN(router::GenerationRequest request,
                          router::ParseGenerate(message.SerializeAsString()));
  BALEEN_ASSIGN_OR_RETURN(
      router::Prompt prompt,
      router::MakePrompt(model, std::move(request.prompt), SystemClock().Wall()));
  router::ModelIdentity identity{.name = info.name,
                                 .context_tokens = info.context_tokens,
                                 .vocabulary_size = info.vocabulary_size,
                                 .eos_token_ids = info.eos_token_ids};
  BALEEN_RETURN_IF_ERROR(router::CheckFit(request, prompt.ids, identity));
  if (request.choices != 1) {
    return absl::InvalidArgumentError("a model without a router makes one choice at a time");
  }
  LocalRequest local;
  local.reply = {.model = &model, .with_logprobs = request.sampling.logprobs >= 0};
  if (!request.stop.ignore_eos) local.reply.end_token_ids = identity.eos_token_ids;
  local.totals = {.prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size()),
                  .seed = request.sampling.seed};
  local.start = {.key = {.id = {.router = 1, .number = 1}, .attempt = 1},
                 .leg = worker::Leg::kWhole,
                 .sampling = {.temperature = request.sampling.temperature,
                              .top_k = request.sampling.top_k,
                              .top_p = request.sampling.top_p,
                              .seed = request.sampling.seed,
                              .logprobs = request.sampling.logprobs},
                 .tokens_max = router::TokensMax(request.stop.tokens_max, prompt.ids.size(),
                                                 info.context_tokens),
                 .ignore_eos = request.stop.ignore_eos,
                 .time_left = within};
  local.start.prompt = std::move(prompt.ids);
  return local;
}

// Turns what the engine says into the chunks of a reply, by the router's own code.
class ReplySink final : public worker::OutputSink {
 public:
  using OnChunk = std::function<void(const v1::GenerateChunk&)>;

  ReplySink(const LocalRequest& request, const OnChunk& on_chunk)
      : model_(*request.reply.model),
        reply_(request.reply),
        totals_(request.totals),
        on_chunk_(on_chunk),
        begun_(SystemClock().Monotonic()) {}

  void Deliver(worker::LinkId, worker::StepReport report) override {
    for (worker::TokenOutput& output : report.tokens) OnToken(output);
    for (const worker::EndedOutput& output : report.ended) OnEnd(output);
  }

  // OK once it has ended well.
  const std::optional<absl::Status>& ended() const { return ended_; }

 private:
  void OnToken(worker::TokenOutput& output) {
    if (reply_.tokens() == 0) totals_.to_first_token = SystemClock().Monotonic() - begun_;
    router::ReplyToken token{.id = output.token.token};
    if (output.with_logprobs) {
      token.logprobs = {.sampled = output.token.logprob, .top = std::move(output.token.top)};
    }
    reply_.Add(std::move(token));
    router::ReplyPart part;
    reply_.Take(part);
    Send(std::move(part));
  }

  void OnEnd(const worker::EndedOutput& output) {
    ended_ = output.status;
    if (!output.status.ok()) return;
    const bool stopped = output.reason == worker::EndReason::kStop;
    reply_.Finish(stopped ? router::FinishReason::kStop : router::FinishReason::kLength);
    totals_.completion_tokens = reply_.tokens();
    totals_.reasoning_tokens = reply_.reasoning_tokens();
    totals_.total = SystemClock().Monotonic() - begun_;
    router::ReplyPart part;
    reply_.Take(part);
    part.totals = totals_;
    Send(std::move(part));
  }

  void Send(router::ReplyPart part) {
    on_chunk_(router::ToGenerateChunk("", model_, std::move(part)));
  }

  const router::ModelText& model_;
  router::ChoiceReply reply_;
  router::ReplyTotals totals_;
  const OnChunk& on_chunk_;
  const absl::Duration begun_;
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
  ReplySink sink(request, on_chunk);
  return RunEngine(std::move(request.start), *model, sink);
}

}  // namespace baleen::cli
