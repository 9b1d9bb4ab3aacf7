#include "router/server/generation/generation.h"

#include <fmt/format.h>

#include <algorithm>
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
  request_ = std::move(request);
  deadline_ = std::min(origin.deadline, accepted_ + shard_.options().request_wait_max);
  BALEEN_ASSIGN_OR_RETURN(model_, parts_.models.Find(request_.model));
  BALEEN_ASSIGN_OR_RETURN(ticket_, parts_.admission.Admit(origin.bytes));
  // Without workers there is no answer, however the text comes out.
  BALEEN_ASSIGN_OR_RETURN(identity_, IdentityOf(*parts_.view(), model_->name));
  if (auto* ids = std::get_if<TokenIds>(&request_.prompt)) {
    return Submit({.ids = std::move(*ids)});
  }
  SetPhase(Phase::kText);
  const bool taken = shard_.SubmitText(
      number_, gone_,
      [model = model_, source = std::move(request_.prompt), now = parts_.clock.Wall()]() mutable {
        return MakePrompt(*model, std::move(source), now);
      });
  if (taken) return absl::OkStatus();
  return MakeStatus(Reason::kQueueFull, "too many texts wait to be tokenized");
}

void Generation::OnPrompt(absl::StatusOr<Prompt> prompt) {
  if (phase_ != Phase::kText) return;
  absl::Status status = prompt.ok() ? Submit(*std::move(prompt)) : std::move(prompt).status();
  if (!status.ok()) Fail(std::move(status));
}

absl::Status Generation::Submit(Prompt prompt) {
  // Workers may have come and gone meanwhile.
  BALEEN_ASSIGN_OR_RETURN(identity_, IdentityOf(*parts_.view(), model_->name));
  BALEEN_RETURN_IF_ERROR(CheckFit(request_, prompt.ids, identity_));
  MakeChoices(prompt);
  totals_.prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size());
  totals_.seed = request_.sampling.seed;
  if (request_.return_prompt_token_ids) prompt_token_ids_ = prompt.ids;
  Request request{.model = model_->name,
                  .sampling = request_.sampling,
                  .tokens_max = TokensMax(request_.stop.tokens_max, prompt.ids.size(),
                                          identity_.context_tokens),
                  .ignore_eos = request_.stop.ignore_eos,
                  .deadline = deadline_,
                  .sink = &shard_.sink()};
  request.prompt = std::make_shared<const TokenIds>(std::move(prompt.ids));
  parts_.metrics.prompt_tokens_total.Add(static_cast<double>(request.prompt->size()));
  SetPhase(Phase::kDispatched);
  running_ = choices_.size();
  for (std::uint32_t i = 0; i < choices_.size(); ++i) {
    Request choice = request;
    choice.id = IdOf(i);
    choice.sampling.seed += i;
    parts_.port.Submit(std::move(choice));
  }
  return absl::OkStatus();
}

void Generation::MakeChoices(const Prompt& prompt) {
  ChoiceOptions options{.splits_reasoning = request_.chat_reply,
                        .opens_reasoning = prompt.opens_reasoning,
                        .model = model_,
                        .with_logprobs = request_.sampling.logprobs >= 0};
  if (!request_.stop.ignore_eos) options.end_token_ids = identity_.eos_token_ids;
  options.end_token_ids.insert(options.end_token_ids.end(), request_.stop.token_ids.begin(),
                               request_.stop.token_ids.end());
  choices_.reserve(request_.choices);
  for (std::uint32_t i = 0; i < request_.choices; ++i) choices_.emplace_back(options);
}

// --- From dispatch ---

void Generation::OnReply(Reply reply) {
  if (phase_ != Phase::kDispatched) return;
  const auto choice = static_cast<std::uint32_t>(reply.id.number - number_);
  if (auto* token = std::get_if<ReplyToken>(&reply.body)) {
    TakeToken(choice, std::move(*token));
  } else {
    TakeEnding(choice, std::get<Ending>(reply.body));
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
    Fail(ending.status);
    return;
  }
  choice.reply.Finish(choice.text_ended ? FinishReason::kStop : ending.finish);
  if (index == 0) {
    totals_.prefill_worker = ending.prefill_worker;
    totals_.decode_worker = ending.decode_worker;
  }
  totals_.kv_transfer_bytes += ending.kv_transfer_bytes;
  if (running_ == 0) Finish();
}

void Generation::Finish() {
  for (const Choice& choice : choices_) {
    totals_.completion_tokens += choice.reply.tokens();
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
  if (reason == Reason::kQueueFull) retry_after_ = parts_.admission.RetryAfter();
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
  if (phase == Phase::kEnded) gone_->store(true);
  phase_ = phase;
}

void Generation::Count(const absl::Status& status) {
  const std::string_view outcome =
      status.ok() ? "finished"
                  : contract::RowOf(contract::ReasonOf(status).value_or(Reason::kInternal)).name;
  parts_.metrics.RequestsTotal(outcome).Add();
}

// --- To the client ---

bool Generation::has_pending() const {
  return std::ranges::any_of(choices_, [](const Choice& c) { return c.reply.pending(); }) ||
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
  const auto count = static_cast<std::uint32_t>(choices_.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t index = (next_choice_ + i) % count;
    if (!choices_[index].reply.pending()) continue;
    part.choice = index;
    choices_[index].reply.Take(part);
    next_choice_ = (index + 1) % count;
    break;
  }
  if (std::exchange(first_part_, false)) part.prompt_token_ids = std::move(prompt_token_ids_);
  const bool more =
      std::ranges::any_of(choices_, [](const Choice& c) { return c.reply.pending(); });
  if (!more) flush_at_ = Now() + shard_.options().flush_interval;
  if (!more && status_ && status_->ok()) {
    part.totals = totals_;
    totals_taken_ = true;
  }
  return part;
}

contract::RequestId Generation::IdOf(std::uint32_t choice) const {
  return {parts_.router, number_ + choice};
}

absl::Duration Generation::Now() const { return parts_.clock.Monotonic(); }

}  // namespace baleen::router
