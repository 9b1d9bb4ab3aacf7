#include "tools/cli/session/local_generation.h"

#include <fmt/format.h>

#include <memory>
#include <utility>
#include <variant>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/metrics.h"
#include "proto/contract/ids.h"
#include "router/server/request/prompt.h"
#include "router/server/request/validate.h"
#include "router/text/detokenizer.h"
#include "router/text/tokenizer.h"
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

using TokenizerPointer = std::shared_ptr<const router::Tokenizer>;

// Null without a tokenizer.json.
absl::StatusOr<TokenizerPointer> LoadTokenizer(const std::string& directory) {
  auto tokenizer = router::Tokenizer::Load(directory);
  if (absl::IsNotFound(tokenizer.status())) return TokenizerPointer();
  return tokenizer;
}

// The request as a router reads, checks and completes it: the same functions, so the same errors
// and defaults.
absl::StatusOr<worker::StartCommand> StartOf(const v1::GenerateRequest& message,
                                             const worker::ModelInfo& info,
                                             const TokenizerPointer& tokenizer) {
  BALEEN_ASSIGN_OR_RETURN(router::GenerationRequest request,
                          router::ReadGenerateRequest(message.SerializeAsString()));
  const router::ModelText text{.name = info.name, .tokenizer = tokenizer};
  BALEEN_ASSIGN_OR_RETURN(router::Prompt prompt, router::MakePrompt(text, std::move(request.prompt),
                                                                    SystemClock().Wall()));
  const router::ModelIdentity identity{.name = info.name,
                                       .context_tokens = info.context_tokens,
                                       .vocabulary_size = info.vocabulary_size};
  BALEEN_RETURN_IF_ERROR(router::CheckFit(request, prompt.ids, identity));
  const std::uint32_t tokens_max =
      router::TokensMax(request.tokens_max, prompt.ids.size(), info.context_tokens);
  return worker::StartCommand{.key = {.id = {.router = 1, .number = 1}, .attempt = 1},
                              .leg = worker::Leg::kWhole,
                              .prompt = std::move(prompt.ids),
                              .sampling = {.temperature = request.sampling.temperature,
                                           .top_k = request.sampling.top_k,
                                           .top_p = request.sampling.top_p,
                                           .seed = request.sampling.seed,
                                           .logprobs = request.sampling.logprobs},
                              .tokens_max = tokens_max,
                              .ignore_eos = request.ignore_eos};
}

// Turns what the engine says into the chunks of a reply.
class ChunkSink final : public worker::OutputSink {
 public:
  ChunkSink(const router::TokenTable* table,
            const std::function<void(const v1::GenerateChunk&)>& on_chunk)
      : detokenizer_(table), has_text_(table != nullptr), on_chunk_(on_chunk) {}

  void Deliver(worker::LinkId, worker::StepReport report) override {
    for (const worker::TokenOutput& output : report.tokens) OnToken(output);
    for (worker::EndedOutput& output : report.ended) {
      ended_ = true;
      end_ = std::move(output);
    }
  }

  bool ended() const { return ended_; }
  const worker::EndedOutput& end() const { return end_; }
  std::uint32_t tokens() const { return tokens_; }
  absl::Duration first_token_at() const { return first_token_at_; }

  // What is left of the text.
  std::string Rest() {
    std::string rest;
    if (has_text_) detokenizer_.Finish(&rest);
    return rest;
  }

 private:
  void OnToken(const worker::TokenOutput& output) {
    if (tokens_ == 0) first_token_at_ = SystemClock().Monotonic();
    v1::GenerateChunk chunk;
    chunk.add_token_ids(output.token.token);
    chunk.set_first_token_index(tokens_++);
    if (has_text_) detokenizer_.Push(output.token.token, chunk.mutable_delta());
    if (output.with_logprobs) {
      v1::TokenLogprob& logprob = *chunk.add_logprobs();
      logprob.set_token_id(output.token.token);
      logprob.set_logprob(output.token.logprob);
      for (const auto& [id, value] : output.token.top) {
        v1::TopLogprob& entry = *logprob.add_top();
        entry.set_token_id(id);
        entry.set_logprob(value);
      }
    }
    on_chunk_(chunk);
  }

  router::Detokenizer detokenizer_;
  const bool has_text_;
  const std::function<void(const v1::GenerateChunk&)>& on_chunk_;
  std::uint32_t tokens_ = 0;
  absl::Duration first_token_at_;
  bool ended_ = false;
  worker::EndedOutput end_;
};

// Runs one request through an engine of its own.
absl::Status RunEngine(worker::StartCommand start, worker::Model& model, ChunkSink& sink) {
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
    if (!engine.RunOnce() && !sink.ended()) {
      return absl::InternalError("the engine has nothing to do for a request that has not ended");
    }
  }
  return sink.end().status;
}

}  // namespace

absl::Status GenerateLocally(const std::string& directory, const v1::GenerateRequest& request,
                             const std::function<void(const v1::GenerateChunk&)>& on_chunk) {
  BALEEN_RETURN_IF_ERROR(worker::CheckCpu());
  const auto device = worker::MakeReferenceDevice();
  BALEEN_ASSIGN_OR_RETURN(
      const auto model,
      worker::DeepSeekModel::Load(
          {.directory = directory, .limits = worker::StepLimitsFor(kLimits)}, *device));
  BALEEN_ASSIGN_OR_RETURN(const TokenizerPointer tokenizer, LoadTokenizer(directory));

  const absl::Duration begun = SystemClock().Monotonic();
  BALEEN_ASSIGN_OR_RETURN(worker::StartCommand start, StartOf(request, model->info(), tokenizer));

  v1::GenerateChunk last;
  last.mutable_usage()->set_prompt_tokens(static_cast<std::uint32_t>(start.prompt.size()));
  last.mutable_usage()->set_seed(start.sampling.seed);
  ChunkSink sink(tokenizer ? &tokenizer->table() : nullptr, on_chunk);
  BALEEN_RETURN_IF_ERROR(RunEngine(std::move(start), *model, sink));

  last.set_delta(sink.Rest());
  last.set_first_token_index(sink.tokens());
  last.set_finish_reason(sink.end().reason == worker::EndReason::kStop ? v1::FINISH_REASON_STOP
                                                                       : v1::FINISH_REASON_LENGTH);
  last.mutable_usage()->set_completion_tokens(sink.tokens());
  last.mutable_timing()->set_time_to_first_token_us(
      static_cast<std::uint64_t>(absl::ToInt64Microseconds(sink.first_token_at() - begun)));
  last.mutable_timing()->set_total_us(
      static_cast<std::uint64_t>(absl::ToInt64Microseconds(SystemClock().Monotonic() - begun)));
  on_chunk(last);
  return absl::OkStatus();
}

}  // namespace baleen::cli
