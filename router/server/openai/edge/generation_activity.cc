// Chat and completions: a Generation whose parts become events, or one answer.
#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "proto/contract/status.h"
#include "router/server/generation/generation.h"
#include "router/server/openai/edge/activities.h"
#include "router/server/openai/reply/answer_writer.h"
#include "router/server/openai/reply/error_body.h"
#include "router/server/openai/reply/event_writer.h"
#include "router/server/openai/request/request.h"
#include "router/server/request/read_request.h"

namespace baleen::router::openai {
namespace {

using contract::MakeStatus;
using contract::Reason;

class GenerationActivity final : public http::Activity, private GenerationEdge {
 public:
  GenerationActivity(ApiHandler& handler, http::Exchange& exchange, Api api)
      : handler_(handler),
        exchange_(exchange),
        api_(api),
        generation_(handler.generations(), *this) {}

  void Begin(const ReplyForm& form, absl::StatusOr<GenerationRequest> request,
             const RequestOrigin& origin) {
    form_ = form;
    generation_.Begin(std::move(request), origin);
  }

  // http::Activity
  void OnWritable() override {
    if (!ended_) generation_.Flush();
  }

 private:
  // GenerationEdge
  void OnReady() override;

  void Stream();
  void Collect();
  void Fail(const absl::Status& status);
  AnswerHead Head() const;
  const TokenTable* Tokens() const;
  http::Response WithRequestId(http::Response response) const;

  ApiHandler& handler_;
  http::Exchange& exchange_;
  const Api api_;
  ReplyForm form_;
  Generation generation_;
  std::unique_ptr<EventWriter> events_;   // once streaming
  std::unique_ptr<AnswerWriter> answer_;  // once collecting
  bool ended_ = false;
};

void GenerationActivity::OnReady() {
  if (ended_) return;
  if (const auto& status = generation_.status(); status && !status->ok()) {
    Fail(*status);
  } else if (form_.stream) {
    Stream();
  } else {
    Collect();
  }
}

void GenerationActivity::Stream() {
  // A client that does not read gets larger events, less often, until the generation has enough of
  // it.
  if (!exchange_.writable()) return;
  std::string& out = handler_.scratch();
  out.clear();
  bool last = false;
  while (!last && generation_.ready()) {
    if (events_ == nullptr) {
      events_ = std::make_unique<EventWriter>(Head(), form_, Tokens());
      exchange_.Begin(
          WithRequestId({.content_type = "text/event-stream; charset=utf-8",
                         .fields = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}}}));
    }
    ReplyPart part = generation_.Take();
    last = part.totals.has_value();
    events_->Append(std::move(part), &out);
  }
  if (last) out += kDoneEvent;
  exchange_.Send(out);
  if (!last) return;
  ended_ = true;
  exchange_.End();
}

void GenerationActivity::Collect() {
  if (answer_ == nullptr) answer_ = std::make_unique<AnswerWriter>(form_, Tokens());
  bool last = false;
  while (!last && generation_.ready()) {
    ReplyPart part = generation_.Take();
    last = part.totals.has_value();
    answer_->Add(api_, std::move(part));
  }
  if (answer_->bytes() > kAnswerBytesMax) {
    const absl::Status why =
        MakeStatus(Reason::kInvalidRequest,
                   fmt::format("stream: the answer is larger than {} bytes, which must be streamed",
                               kAnswerBytesMax));
    Fail(why);
    generation_.Abandon(MakeStatus(Reason::kCancelled, "the answer is too large"));
  } else if (last) {
    ended_ = true;
    exchange_.Respond(WithRequestId({.body = answer_->Finish(Head())}));
  }
}

void GenerationActivity::Fail(const absl::Status& status) {
  ended_ = true;
  if (events_ == nullptr) {
    exchange_.Respond(WithRequestId(ErrorResponse(status, generation_.retry_after())));
    return;
  }
  // The head has left with code 200. No [DONE] follows: nobody may take the answer for complete.
  exchange_.Send(fmt::format("data: {}\n\n", ErrorBody(status)));
  exchange_.End();
}

AnswerHead GenerationActivity::Head() const {
  return {.api = api_,
          .request_id = generation_.request_id(),
          .model = generation_.model()->name,
          .model_digest = generation_.model_digest(),
          .created = handler_.parts().clock.Wall()};
}

const TokenTable* GenerationActivity::Tokens() const {
  const auto& tokenizer = generation_.model()->tokenizer;
  return tokenizer == nullptr ? nullptr : &tokenizer->table();
}

http::Response GenerationActivity::WithRequestId(http::Response response) const {
  response.fields.push_back({"x-request-id", generation_.request_id()});
  if (const std::string& route = generation_.route_text(); !route.empty()) {
    response.fields.push_back({"x-baleen-route", route});
  }
  return response;
}

RequestOrigin OriginOf(const ApiHandler& api, const http::Request& request) {
  return {.bytes = request.body.size(),
          .caller = api.parts().access.keys->Authenticate(request.head.authorization),
          .explain = request.head.debug == "route"};
}

}  // namespace

std::unique_ptr<http::Activity> StartChat(ApiHandler& api, http::Exchange& exchange,
                                          const http::Request& request) {
  auto activity = std::make_unique<GenerationActivity>(api, exchange, Api::kChat);
  absl::StatusOr<ChatBody> body = ReadChatBody(request.body);
  const RequestOrigin origin = OriginOf(api, request);
  if (body.ok()) {
    activity->Begin(body->form, ReadChat(std::move(body->message)), origin);
  } else {
    activity->Begin({}, std::move(body).status(), origin);
  }
  return activity;
}

std::unique_ptr<http::Activity> StartCompletion(ApiHandler& api, http::Exchange& exchange,
                                                const http::Request& request) {
  auto activity = std::make_unique<GenerationActivity>(api, exchange, Api::kCompletions);
  absl::StatusOr<CompletionBody> body = ReadCompletionBody(request.body);
  const RequestOrigin origin = OriginOf(api, request);
  if (body.ok()) {
    activity->Begin(body->form, ReadGenerate(std::move(body->message)), origin);
  } else {
    activity->Begin({}, std::move(body).status(), origin);
  }
  return activity;
}

}  // namespace baleen::router::openai
