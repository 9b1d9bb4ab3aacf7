#include "router/server/generation/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "router/server/generation/reason.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;

Generation::Generation(GenerationShard& shard, GenerationEdge& edge)
    : shard_(shard),
      parts_(shard.parts()),
      edge_(edge),
      gone_(std::make_shared<std::atomic<bool>>(false)) {}

Generation::~Generation() {
  Abandon(MakeStatus(Reason::kCancelled, "the client is gone"));
  for (std::uint32_t i = 0; i < numbers_; ++i) shard_.Leave(number_ + i);
}

// --- Towards dispatch ---

void Generation::Begin(absl::StatusOr<GenerationRequest> request, const RequestOrigin& origin) {
  accepted_ = Now();
  numbers_ = request.ok() ? request->choices : 1;
  number_ = shard_.NextNumbers(numbers_);
  request_id_ = contract::ToString(IdOf(0));
  for (std::uint32_t i = 0; i < numbers_; ++i) shard_.Enter(number_ + i, *this);
  absl::Status status =
      request.ok() ? Accept(*std::move(request), origin) : std::move(request).status();
  if (!status.ok()) Fail(std::move(status));
}

absl::Status Generation::Accept(GenerationRequest request, const RequestOrigin& origin) {
  BALEEN_ASSIGN_OR_RETURN(caller_, origin.caller);
  if (caller_ == nullptr) caller_ = std::make_shared<const Caller>();
  request_ = std::move(request);
  request_.priority = std::min(request_.priority, caller_->priority_max);
  explain_ = origin.explain;
  deadline_ = std::min(origin.deadline, accepted_ + shard_.options().request_wait_max);
  BALEEN_ASSIGN_OR_RETURN(model_, parts_.models.Find(request_.model));
  if (!caller_->MayUse(model_->name)) {
    return MakeStatus(Reason::kPermissionDenied,
                      fmt::format("this key may not use model '{}'", model_->name));
  }
  BALEEN_ASSIGN_OR_RETURN(ticket_, parts_.admission.Admit({.bytes = origin.bytes,
                                                           .tenant = caller_->tenant,
                                                           .priority = request_.priority}));
  // Without workers there is no answer, however the text comes out.
  BALEEN_ASSIGN_OR_RETURN(identity_, IdentityOf(*parts_.view(), model_->name));
  return AskForPrompt();
}

absl::Status Generation::AskForPrompt() {
  SetPhase(Phase::kText);
  PromptWish wish{.source = std::move(request_.prompt),
                  .format = request_.format,
                  .echo = request_.echo,
                  .tenant_salt = parts_.access.salts.Of(caller_->tenant),
                  .model_digest = identity_.digest};
  const bool taken = shard_.SubmitText(
      number_, gone_,
      [model = model_, wish = std::move(wish), now = parts_.clock.Wall()]() mutable {
        return MakePrompt(*model, std::move(wish), now);
      });
  if (taken) return absl::OkStatus();
  return MakeStatus(Reason::kQueueFull, "too many texts wait to be tokenized");
}

void Generation::OnPrompt(absl::StatusOr<Prompt> prompt) {
  if (phase_ != Phase::kText) return;
  const absl::Status status = prompt.ok() ? Submit(*std::move(prompt)) : prompt.status();
  if (!status.ok()) Fail(status);
}

absl::Status Generation::Submit(Prompt prompt) {
  // Workers may have come and gone meanwhile.
  BALEEN_ASSIGN_OR_RETURN(identity_, IdentityOf(*parts_.view(), model_->name));
  BALEEN_RETURN_IF_ERROR(CheckFit(request_, prompt.ids, identity_));
  BALEEN_RETURN_IF_ERROR(MakeChoices(prompt));
  totals_.prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size());
  totals_.seed = request_.sampling.seed;
  prompt_text_ = std::move(prompt.text);
  Request request = RequestFor(std::move(prompt));
  BALEEN_RETURN_IF_ERROR(Charge(totals_.prompt_tokens, request.tokens_max));
  prompt_ = request.prompt;
  parts_.metrics.prompt_tokens_total.Add(totals_.prompt_tokens);
  SetPhase(Phase::kDispatched);
  running_ = choices_.size();
  for (std::uint32_t i = 0; i < choices_.size(); ++i) {
    Request choice = request;
    choice.id = IdOf(i);
    choice.sampling.seed += i;
    if (i > 0) {
      choice.prompt_logprobs.reset();
      choice.explain = false;
    }
    parts_.port.Submit(std::move(choice));
  }
  return absl::OkStatus();
}

Request Generation::RequestFor(Prompt prompt) const {
  Request request{.model = model_->name,
                  .sampling = request_.sampling,
                  .tokens_max = TokensMax(request_.stop.tokens_max, prompt.ids.size(),
                                          identity_.context_tokens),
                  .ignore_eos = request_.stop.ignore_eos,
                  .stop_token_ids = request_.stop.token_ids,
                  .prompt_logprobs = request_.prompt_logprobs,
                  .grammar = std::move(prompt.grammar),
                  .block_hashes = std::move(prompt.block_hashes),
                  .tenant = caller_->tenant,
                  .priority = request_.priority,
                  .explain = explain_,
                  .deadline = deadline_,
                  .sink = &shard_.sink()};
  request.tokens_min = std::min(request_.stop.tokens_min, request.tokens_max);
  request.prompt = std::make_shared<const TokenIds>(std::move(prompt.ids));
  return request;
}

absl::Status Generation::Charge(std::uint32_t prompt_tokens, std::uint32_t tokens_max) {
  const std::uint64_t tokens = prompt_tokens + std::uint64_t{tokens_max} * request_.choices;
  const std::optional<absl::Duration> wait = parts_.access.budget.Charge(*caller_, tokens);
  if (!wait) {
    charged_ = tokens;
    return absl::OkStatus();
  }
  retry_after_ = *wait;
  return MakeStatus(Reason::kRateLimited,
                    fmt::format("{} tokens of prompt and reply are more than what is left of this "
                                "tenant's {} a minute",
                                tokens, caller_->tokens_per_minute));
}

absl::Status Generation::MakeChoices(const Prompt& prompt) {
  ChoiceOptions options{.splits_reasoning = request_.chat_reply,
                        .opens_reasoning = prompt.opens_reasoning,
                        .model = model_,
                        .with_logprobs = request_.sampling.logprobs >= 0,
                        .finds_tool_calls = request_.tool_mode != ToolMode::kNone,
                        .single_tool_call = request_.single_tool_call,
                        .tokens_min = request_.stop.tokens_min};
  if (!request_.stop.ignore_eos) options.end_token_ids = identity_.eos_token_ids;
  options.end_token_ids.insert(options.end_token_ids.end(), request_.stop.token_ids.begin(),
                               request_.stop.token_ids.end());
  auto stop_texts = StopTexts::Make(request_.stop.texts);
  if (!stop_texts.ok()) {
    return MakeStatus(Reason::kInvalidRequest, std::string(stop_texts.status().message()));
  }
  if (*stop_texts != nullptr && model_->tokenizer == nullptr) {
    return MakeStatus(Reason::kInvalidRequest, "stop.text: the model has no tokenizer");
  }
  options.stop_texts = *std::move(stop_texts);
  choices_.reserve(request_.choices);
  for (std::uint32_t i = 0; i < request_.choices; ++i) choices_.emplace_back(options);
  return absl::OkStatus();
}

// --- From dispatch ---

void Generation::OnReply(Reply reply) {
  if (phase_ != Phase::kDispatched) return;
  const auto choice = static_cast<std::uint32_t>(reply.id.number - number_);
  if (auto* token = std::get_if<ReplyToken>(&reply.body)) {
    TakeToken(choice, std::move(*token));
  } else if (const auto* ending = std::get_if<Ending>(&reply.body)) {
    TakeEnding(choice, *ending);
  } else if (auto* logprobs = std::get_if<router::PromptLogprobs>(&reply.body)) {
    TakePromptLogprobs(std::move(*logprobs));
  } else {
    route_text_ = std::move(std::get<RouteText>(reply.body).text);
  }
}

void Generation::TakePromptLogprobs(router::PromptLogprobs logprobs) {
  for (std::size_t i = 0; i < logprobs.entries.size(); ++i) {
    prompt_logprobs_.push_back({(*prompt_)[logprobs.first + i], std::move(logprobs.entries[i])});
  }
}

void Generation::TakeToken(std::uint32_t index, ReplyToken token) {
  Choice& choice = choices_[index];
  if (choice.text_ended) return;  // the workers go on until they hear of it
  ObserveToken();
  if (choice.reply.Add(std::move(token))) {
    choice.text_ended = true;
    parts_.port.Cancel(IdOf(index));
  } else if (choice.reply.full()) {
    Fail(MakeStatus(Reason::kCancelled,
                    fmt::format("the client reads too slowly: {} tokens or {} bytes of text wait",
                                kPendingTokensMax, kPendingTextBytesMax)));
  }
}

void Generation::ObserveToken() {
  const absl::Duration elapsed = Now() - accepted_;
  if (!to_first_token_) {
    to_first_token_ = elapsed;
    parts_.metrics.time_to_first_token_seconds.Observe(absl::ToDoubleSeconds(elapsed));
  } else {
    parts_.metrics.inter_token_latency_seconds.Observe(
        absl::ToDoubleSeconds(elapsed - latest_token_));
  }
  latest_token_ = elapsed;
  parts_.metrics.completion_tokens_total.Add();
}

void Generation::TakeEnding(std::uint32_t index, const Ending& ending) {
  Choice& choice = choices_[index];
  choice.running = false;
  --running_;
  if (!ending.status.ok() && !choice.text_ended) {
    retry_after_ = ending.retry_after;
    Fail(ending.status);
    return;
  }
  choice.reply.Finish(choice.text_ended ? FinishReason::kStop : ending.finish);
  if (index == 0) {
    totals_.prefill_worker = ending.prefill_worker;
    totals_.decode_worker = ending.decode_worker;
  }
  totals_.kv_transfer_bytes += ending.kv_transfer_bytes;
  totals_.cached_tokens = std::max(totals_.cached_tokens, ending.cached_tokens);
  if (running_ == 0) Finish();
}

void Generation::Finish() {
  totals_.completion_tokens = CompletionTokens();
  for (const Choice& choice : choices_) {
    totals_.reasoning_tokens += choice.reply.reasoning_tokens();
  }
  totals_.total = Now() - accepted_;
  totals_.to_first_token = to_first_token_.value_or(totals_.total);
  status_ = absl::OkStatus();
  SetPhase(Phase::kEnded);
  Count(*status_);
  parts_.metrics.request_seconds.Observe(absl::ToDoubleSeconds(totals_.total));
}

// --- Ends ---

void Generation::Fail(const absl::Status& status) {
  CancelRunning();
  status_ = WithReason(status);
  SetPhase(Phase::kEnded);
  Count(*status_);
  const Reason reason = *contract::ReasonOf(*status_);
  if (reason == Reason::kQueueFull && retry_after_ == absl::ZeroDuration()) {
    retry_after_ = parts_.admission.RetryAfter();
  }
  if (reason == Reason::kInternal) {
    log::Error("request failed",
               {{"request", request_id_}, {"error", std::string(status_->message())}});
  }
  edge_.OnReady();
}

void Generation::Abandon(absl::Status why) {
  if (phase_ == Phase::kNew || phase_ == Phase::kEnded) {
    ticket_ = {};
    return;
  }
  CancelRunning();
  status_ = std::move(why);
  SetPhase(Phase::kEnded);
  Count(*status_);
  ticket_ = {};
}

void Generation::CancelRunning() {
  if (phase_ != Phase::kDispatched) return;
  for (std::uint32_t i = 0; i < choices_.size(); ++i) {
    if (choices_[i].running) parts_.port.Cancel(IdOf(i));
  }
}

void Generation::SetPhase(Phase phase) {
  if (phase_ == Phase::kText) parts_.metrics.requests_waiting.Add(-1);
  if (phase == Phase::kText) parts_.metrics.requests_waiting.Add(1);
  if (phase == Phase::kEnded) {
    gone_->store(true);
    if (charged_ > 0) {
      const std::uint64_t used = totals_.prompt_tokens + std::uint64_t{CompletionTokens()};
      parts_.access.budget.Refund(*caller_, charged_ - std::min(used, charged_));
    }
  }
  phase_ = phase;
}

void Generation::Count(const absl::Status& status) {
  const std::string_view outcome =
      status.ok() ? "finished"
                  : contract::RowOf(contract::ReasonOf(status).value_or(Reason::kInternal)).name;
  parts_.metrics.RequestsTotal(outcome).Add();
}

// --- To the client ---

std::uint32_t Generation::CompletionTokens() const {
  std::uint32_t tokens = 0;
  for (const Choice& choice : choices_) tokens += choice.reply.tokens();
  return tokens;
}

bool Generation::has_pending() const {
  return !prompt_logprobs_.empty() ||
         std::ranges::any_of(choices_, [](const Choice& c) { return c.reply.pending(); }) ||
         (status_ && status_->ok() && !totals_taken_);
}

void Generation::Flush() {
  if (!has_pending()) return;
  if (ready()) {
    edge_.OnReady();
  } else if (!flush_waits_) {
    flush_waits_ = true;
    shard_.FlushLater(number_);
  }
}

void Generation::FlushWaited() {
  flush_waits_ = false;
  Flush();
}

bool Generation::ready() const {
  if (!has_pending()) return false;
  return status_.has_value() || Now() >= flush_at_;
}

ReplyPart Generation::Take() {
  ReplyPart part;
  if (std::exchange(first_part_, false)) {
    if (request_.return_prompt_token_ids) part.prompt_token_ids = *prompt_;
    part.prompt_text = std::move(prompt_text_);
  }
  if (!prompt_logprobs_.empty()) {
    TakePendingPrompt(part);
    return part;
  }
  const auto count = static_cast<std::uint32_t>(choices_.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = (next_choice_ + i) % count;
    if (!choices_[index].reply.pending()) continue;
    part.choice = index;
    choices_[index].reply.Take(part);
    for (ToolCallDelta& call : part.delta.tool_calls) {
      if (!call.name.empty())
        call.id = fmt::format("call_{}_{}_{}", request_id_, index, call.index);
    }
    next_choice_ = (index + 1) % count;
    break;
  }
  const bool more =
      std::ranges::any_of(choices_, [](const Choice& c) { return c.reply.pending(); });
  if (more) return part;
  flush_at_ = Now() + shard_.options().flush_interval;
  if (status_ && status_->ok()) {
    part.totals = totals_;
    totals_taken_ = true;
  }
  return part;
}

// As many as fit a message: their number is bounded by the prompt's length, which may be large.
void Generation::TakePendingPrompt(ReplyPart& part) {
  const std::size_t count = std::min(prompt_logprobs_.size(), contract::kPromptLogprobsPerMessage);
  const auto end = prompt_logprobs_.begin() + static_cast<std::ptrdiff_t>(count);
  part.prompt_logprobs.assign(std::make_move_iterator(prompt_logprobs_.begin()),
                              std::make_move_iterator(end));
  prompt_logprobs_.erase(prompt_logprobs_.begin(), end);
}

contract::RequestId Generation::IdOf(std::uint32_t choice) const {
  return {parts_.router, number_ + choice};
}

absl::Duration Generation::Now() const { return parts_.clock.Monotonic(); }

}  // namespace baleen::router
