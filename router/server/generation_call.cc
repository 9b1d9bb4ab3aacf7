#include "router/server/generation_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "router/cluster/grpc_support.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;

GenerationCall::GenerationCall(const CallContext& context, Method method)
    : Call(context, method),
      chat_(method == Method::kChat),
      writer_(&server_context()),
      written_([this](bool ok) { OnWritten(ok); }),
      finished_([this](bool) {
        End();
        SetOver();
      }) {
  grpc::ServerCompletionQueue* queue = context.loop.queue();
  if (chat_) {
    context.service.RequestChat(&server_context(), &request(), &writer_, queue, queue, &called());
  } else {
    context.service.RequestGenerate(&server_context(), &request(), &writer_, queue, queue,
                                    &called());
  }
}

// --- Towards dispatch ---

void GenerationCall::OnRequest(std::string_view bytes) {
  accepted_ = parts_.clock.Monotonic();
  if (absl::Status status = Accept(bytes); !status.ok()) Fail(std::move(status));
}

absl::Status GenerationCall::Accept(std::string_view bytes) {
  BALEEN_ASSIGN_OR_RETURN(request_, chat_ ? ReadChatRequest(bytes) : ReadGenerateRequest(bytes));
  BALEEN_ASSIGN_OR_RETURN(model_, parts_.models.Find(request_.model));
  BALEEN_ASSIGN_OR_RETURN(ticket_, parts_.admission.Admit(bytes.size()));
  if (auto* ids = std::get_if<TokenIds>(&request_.prompt)) {
    return Submit({.ids = std::move(*ids)});
  }
  // Without workers there is no answer, however the text comes out.
  BALEEN_RETURN_IF_ERROR(IdentityOf(*parts_.view(), model_->name).status());
  if (!SubmitText(*model_, std::move(request_.prompt))) {
    return MakeStatus(Reason::kQueueFull, "too many texts wait to be tokenized");
  }
  SetPhase(Phase::kText);
  return absl::OkStatus();
}

void GenerationCall::OnPrompt(absl::StatusOr<Prompt> prompt) {
  if (is_over() || phase_ != Phase::kText) return;
  absl::Status status = prompt.ok() ? Submit(*std::move(prompt)) : prompt.status();
  if (!status.ok()) Fail(std::move(status));
}

absl::Status GenerationCall::Submit(Prompt prompt) {
  BALEEN_ASSIGN_OR_RETURN(ModelIdentity identity, IdentityOf(*parts_.view(), model_->name));
  BALEEN_RETURN_IF_ERROR(CheckFit(request_, prompt.ids, identity));
  const absl::Duration client_wait =
      absl::FromChrono(server_context().deadline() == std::chrono::system_clock::time_point::max()
                           ? std::chrono::system_clock::duration::max()
                           : server_context().deadline() - std::chrono::system_clock::now());
  Request request{
      .id = id(),
      .model = model_->name,
      .sampling = request_.sampling,
      .tokens_max = TokensMax(request_.tokens_max, prompt.ids.size(), identity.context_tokens),
      .ignore_eos = request_.ignore_eos,
      .deadline = parts_.clock.Monotonic() + std::min(client_wait, context_.request_wait_max),
      .sink = &context_.sink};
  reply_ = std::make_unique<ReplyBuilder>(
      ReplyOptions{.chat = chat_,
                   .request_id = contract::ToString(id()),
                   .model = model_,
                   .identity = std::move(identity),
                   .sampling = request_.sampling,
                   .ignore_eos = request_.ignore_eos,
                   .opens_reasoning = prompt.opens_reasoning,
                   .prompt_tokens = static_cast<std::uint32_t>(prompt.ids.size()),
                   .prompt_token_ids = request_.return_prompt_token_ids ? prompt.ids : TokenIds()});
  request.prompt = std::make_shared<const TokenIds>(std::move(prompt.ids));
  SetPhase(Phase::kDispatched);
  parts_.metrics.prompt_tokens_total.Add(static_cast<double>(request.prompt->size()));
  parts_.port.Submit(std::move(request));
  return absl::OkStatus();
}

// --- From dispatch ---

void GenerationCall::OnReply(Reply reply) {
  if (is_over() || phase_ != Phase::kDispatched) return;
  if (auto* token = std::get_if<ReplyToken>(&reply.body)) {
    TakeToken(std::move(*token));
  } else {
    TakeEnding(std::get<Ending>(reply.body));
  }
  WriteNext();
}

void GenerationCall::TakeToken(ReplyToken token) {
  const absl::Duration elapsed = Elapsed();
  if (!to_first_token_) {
    to_first_token_ = elapsed;
    parts_.metrics.time_to_first_token_seconds.Observe(absl::ToDoubleSeconds(elapsed));
  } else {
    parts_.metrics.inter_token_latency_seconds.Observe(
        absl::ToDoubleSeconds(elapsed - latest_token_));
  }
  latest_token_ = elapsed;
  parts_.metrics.completion_tokens_total.Add();
  reply_->Add(std::move(token));
  if (!reply_->full()) return;
  parts_.port.Cancel(id());
  reply_->Take();  // the client would not read it
  Fail(MakeStatus(Reason::kCancelled,
                  fmt::format("the client reads too slowly: {} tokens or {} bytes of text wait",
                              kPendingTokensMax, kPendingTextBytesMax)));
}

void GenerationCall::TakeEnding(const Ending& ending) {
  if (!ending.status.ok()) {
    Fail(ending.status);
    return;
  }
  reply_->Finish(ending,
                 {.to_first_token = to_first_token_.value_or(Elapsed()), .total = Elapsed()});
  SetPhase(Phase::kEnded);
  status_ = absl::OkStatus();
  Count(*status_);
  parts_.metrics.request_seconds.Observe(absl::ToDoubleSeconds(Elapsed()));
}

void GenerationCall::Fail(absl::Status status) {
  status_ = WithReason(status);
  SetPhase(Phase::kEnded);
  Count(*status_);
  if (contract::ReasonOf(*status_) == Reason::kInternal) {
    log::Error("request failed",
               {{"request", contract::ToString(id())}, {"error", std::string(status_->message())}});
  }
  AddRetryHint(*status_);
  WriteNext();
}

void GenerationCall::OnGone() {
  if (phase_ == Phase::kEnded) return;
  if (phase_ == Phase::kDispatched) parts_.port.Cancel(id());
  SetPhase(Phase::kEnded);
  const bool late = server_context().deadline() <= std::chrono::system_clock::now();
  Count(MakeStatus(late ? Reason::kDeadlineExceeded : Reason::kCancelled, "the client is gone"));
  ticket_ = {};
}

void GenerationCall::SetPhase(Phase phase) {
  if (phase_ == Phase::kText) parts_.metrics.requests_waiting.Add(-1);
  if (phase == Phase::kText) parts_.metrics.requests_waiting.Add(1);
  if (phase == Phase::kEnded) LimitFinish();
  phase_ = phase;
}

// --- The stream ---

void GenerationCall::WriteNext() {
  if (operating_ || is_over()) return;
  const bool pending = reply_ != nullptr && reply_->pending();
  if (!pending && !status_) return;
  operating_ = true;
  Begin();
  if (pending && status_ && status_->ok()) {
    writer_.WriteAndFinish(ToBuffer(reply_->Take()), grpc::WriteOptions(), grpc::Status::OK,
                           &finished_);
  } else if (pending) {
    writer_.Write(ToBuffer(reply_->Take()), &written_);
  } else {
    writer_.Finish(ToGrpc(*status_), &finished_);
  }
}

void GenerationCall::OnWritten(bool ok) {
  End();
  operating_ = false;
  if (!ok) return;  // the client is gone, and OnGone says so
  if (phase_ == Phase::kEnded) LimitFinish();
  WriteNext();
}

absl::Duration GenerationCall::Elapsed() const { return parts_.clock.Monotonic() - accepted_; }

}  // namespace baleen::router
