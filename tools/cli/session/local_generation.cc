#include "tools/cli/session/local_generation.h"

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

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
#include "worker/grammar/grammar_pool.h"
#include "worker/grammar/model_grammars.h"
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
  std::string prompt_text;  // to be returned
};

worker::SampleSpec SpecOf(const router::Sampling& sampling) {
  worker::SampleSpec spec{.temperature = sampling.temperature,
                          .top_k = sampling.top_k,
                          .top_p = sampling.top_p,
                          .seed = sampling.seed,
                          .logprobs = sampling.logprobs,
                          .min_p = sampling.min_p,
                          .repetition_penalty = sampling.repetition_penalty,
                          .frequency_penalty = sampling.frequency_penalty,
                          .presence_penalty = sampling.presence_penalty};
  for (const router::LogitBias& bias : sampling.biases) {
    spec.biases.push_back({.token = bias.token, .bias = bias.bias});
  }
  return spec;
}

// The request as a router reads, checks and completes it: the same functions, so the same errors
// and defaults.
absl::StatusOr<LocalRequest> Read(const v1::GenerateRequest& message,
                                  const router::ModelText& model, const worker::ModelInfo& info,
                                  absl::Duration within) {
  BALEEN_ASSIGN_OR_RETURN(router::GenerationRequest request,
                          router::ParseGenerate(message.SerializeAsString()));
  BALEEN_ASSIGN_OR_RETURN(router::Prompt prompt,
                          router::MakePrompt(model,
                                             {.source = std::move(request.prompt),
                                              .format = std::move(request.format),
                                              .echo = request.echo},
                                             SystemClock().Wall()));
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
  local.reply.end_token_ids.insert(local.reply.end_token_ids.end(), request.stop.token_ids.begin(),
                                   request.stop.token_ids.end());
  local.totals = {.prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size()),
                  .seed = request.sampling.seed};
  local.start = {.key = {.id = {.router = 1, .number = 1}, .attempt = 1},
                 .leg = worker::Leg::kWhole,
                 .sampling = SpecOf(request.sampling),
                 .tokens_max = router::TokensMax(request.stop.tokens_max, prompt.ids.size(),
                                                 info.context_tokens),
                 .ignore_eos = request.stop.ignore_eos,
                 .time_left = within,
                 .stop_token_ids = request.stop.token_ids,
                 .tokens_min = request.stop.tokens_min,
                 .prompt_logprobs = request.prompt_logprobs};
  if (prompt.grammar != nullptr) {
    local.start.grammar = {prompt.grammar->source, prompt.grammar->after_token};
  }
  local.prompt_text = std::move(prompt.text);
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
        prompt_(request.start.prompt),
        prompt_text_(request.prompt_text),
        on_chunk_(on_chunk),
        begun_(SystemClock().Monotonic()) {}

  void Deliver(worker::LinkId, worker::StepReport report) override {
    for (worker::PromptLogprobsOutput& output : report.prompt_logprobs) OnPrompt(output);
    for (worker::TokenOutput& output : report.tokens) OnToken(output);
    for (const worker::EndedOutput& output : report.ended) OnEnd(output);
  }

  // OK once it has ended well.
  const std::optional<absl::Status>& ended() const { return ended_; }

 private:
  void OnPrompt(worker::PromptLogprobsOutput& output) {
    router::ReplyPart part;
    for (std::size_t i = 0; i < output.entries.size(); ++i) {
      router::PromptTokenLogprobs token{.id = prompt_[output.first + i]};
      if (std::optional<worker::TokenLogprobs>& entry = output.entries[i]) {
        token.logprobs = {.sampled = entry->logprob, .top = std::move(entry->top)};
      }
      part.prompt_logprobs.push_back(std::move(token));
    }
    Send(std::move(part));
  }

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
    part.prompt_text = std::exchange(prompt_text_, {});
    on_chunk_(router::ToGenerateChunk("", model_, std::move(part)));
  }

  const router::ModelText& model_;
  router::ChoiceReply reply_;
  router::ReplyTotals totals_;
  const std::vector<std::int32_t> prompt_;
  std::string prompt_text_;  // until it is sent
  const OnChunk& on_chunk_;
  const absl::Duration begun_;
  std::optional<absl::Status> ended_;
};

// Runs one request through an engine of its own.
absl::Status RunEngine(worker::StartCommand start, const std::string& directory,
                       worker::Model& model, ReplySink& sink) {
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
  std::optional<worker::ModelGrammars> compiler;
  std::optional<worker::GrammarPool> grammars;
  if (start.grammar.has_value()) {
    compiler.emplace(worker::ModelGrammarsOptions{
        .model_directory = directory,
        .vocabulary = {.size = info.vocabulary_size, .eos_token_ids = info.eos_token_ids}});
    grammars.emplace(worker::GrammarPoolOptions{.wake = [&inbox] { inbox.Wake(); }}, SystemClock(),
                     *compiler);
  }
  worker::Engine engine({.role = worker::Role::kMixed, .scheduler = kLimits},
                        {.clock = SystemClock(),
                         .model = model,
                         .blocks = *pool,
                         .inbox = inbox,
                         .sink = sink,
                         .metrics = metrics,
                         .grammars = grammars ? &*grammars : nullptr});
  BALEEN_RETURN_IF_ERROR(inbox.Push(std::move(start)));
  while (!sink.ended()) {
    BALEEN_RETURN_IF_ERROR(StandardOutputStatus());  // nobody would see the rest
    if (engine.RunOnce() || sink.ended()) continue;
    if (engine.load().sequences_waiting == 0) {
      return absl::InternalError("the engine has nothing to do for a request that has not ended");
    }
    inbox.WaitFor(engine.IdleWait());  // for its grammar
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
  return RunEngine(std::move(request.start), generation.directory, *model, sink);
}

}  // namespace baleen::cli
