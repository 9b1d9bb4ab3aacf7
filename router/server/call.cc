#include "router/server/call.h"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "router/cluster/grpc_support.h"
#include "router/server/request/validate.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;

absl::Status WithReason(const absl::Status& status) {
  if (status.ok() || contract::ReasonOf(status)) return status;
  return MakeStatus(Reason::kInternal, std::string(status.message()));
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

Call::Call(const CallContext& context, Method method)
    : context_(context),
      parts_(context.parts),
      method_(method),
      number_(context.next_number()),
      called_([this](bool ok) { OnCalled(ok); }),
      done_([this](bool) { OnDone(); }),
      gone_(std::make_shared<std::atomic<bool>>(false)) {
  server_context_.AsyncNotifyWhenDone(&done_);
}

void Call::OnCalled(bool ok) {
  End();
  if (!ok) {  // the server is shutting down; there will be no OnDone
    SetOver();
    return;
  }
  Begin();  // until OnDone
  context_.accept(method_);
  grpc::Slice slice;
  if (!request_.DumpToSingleSlice(&slice).ok()) slice = grpc::Slice();
  request_.Clear();
  OnRequest({reinterpret_cast<const char*>(slice.begin()), slice.size()});
}

void Call::OnDone() {
  End();
  gone_->store(true);
  if (over_ || !server_context_.IsCancelled()) return;
  SetOver();
  OnGone();
}

void Call::LimitFinish() { finish_until_ = parts_.clock.Monotonic() + context_.finish_wait_max; }

void Call::Tick() {
  // The call would stay, with its place in admission, for as long as the client likes.
  if (!over_ && parts_.clock.Monotonic() > finish_until_) server_context_.TryCancel();
}

bool Call::SubmitText(const ModelText& model, PromptSource source) {
  return context_.text_pool.Submit([&context = context_, &model, number = number_, gone = gone_,
                                    source = std::move(source)]() mutable {
    if (gone->load()) return;
    absl::StatusOr<Prompt> prompt =
        MakePrompt(model, std::move(source), context.parts.clock.Wall());
    context.loop.Post([&context, number, prompt = std::move(prompt)]() mutable {
      context.deliver_prompt(number, std::move(prompt));
    });
  });
}

void Call::AddRetryHint(const absl::Status& status) {
  if (contract::ReasonOf(status) != Reason::kQueueFull) return;
  const std::int64_t wait_ms = absl::ToInt64Milliseconds(parts_.admission.RetryAfter());
  server_context_.AddTrailingMetadata("retry-after-ms", fmt::format("{}", wait_ms));
}

void Call::Count(const absl::Status& status) {
  const std::string_view outcome =
      status.ok() ? "finished"
                  : contract::RowOf(contract::ReasonOf(status).value_or(Reason::kInternal)).name;
  parts_.metrics.RequestsTotal(outcome).Add();
}

// --- Tokenize and ListModels ---

UnaryCall::UnaryCall(const CallContext& context, Method method)
    : Call(context, method),
      tokenize_(method == Method::kTokenize),
      writer_(&server_context()),
      finished_([this](bool) {
        End();
        SetOver();
      }) {
  grpc::ServerCompletionQueue* queue = context.loop.queue();
  if (tokenize_) {
    context.service.RequestTokenize(&server_context(), &request(), &writer_, queue, queue,
                                    &called());
  } else {
    context.service.RequestListModels(&server_context(), &request(), &writer_, queue, queue,
                                      &called());
  }
}

void UnaryCall::OnRequest(std::string_view bytes) {
  if (!tokenize_) {
    Finish(ListModels());
    return;
  }
  if (const absl::Status status = StartTokenize(bytes); !status.ok()) Finish(status);
}

absl::Status UnaryCall::StartTokenize(std::string_view bytes) {
  BALEEN_ASSIGN_OR_RETURN(TokenizationRequest request, ReadTokenizeRequest(bytes));
  BALEEN_ASSIGN_OR_RETURN(const ModelText* model, parts_.models.Find(request.model));
  BALEEN_ASSIGN_OR_RETURN(ticket_, parts_.admission.Admit(bytes.size()));
  if (SubmitText(*model, std::move(request.prompt))) return absl::OkStatus();
  return MakeStatus(Reason::kQueueFull, "too many texts wait to be tokenized");
}

void UnaryCall::OnPrompt(absl::StatusOr<Prompt> prompt) {
  if (is_over()) return;
  if (!prompt.ok()) {
    Finish(prompt.status());
    return;
  }
  v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(prompt->ids.begin(), prompt->ids.end());
  Finish(response.SerializeAsString());
}

std::string UnaryCall::ListModels() const {
  struct Found {
    ModelIdentity identity;
    bool prefill = false;
    bool decode = false;
  };
  std::map<std::string, Found> found;
  const std::shared_ptr<const ClusterView> view = parts_.view();
  for (const WorkerView& worker : view->workers) {
    Found& model = found[worker.info->model.name];
    model.identity = worker.info->model;
    const bool serves = !worker.suspect && worker.load.takes_requests();
    model.prefill = model.prefill || (serves && worker.info->role != Role::kDecode);
    model.decode = model.decode || (serves && worker.info->role != Role::kPrefill);
  }
  v1::ListModelsResponse response;
  for (const auto& [name, model] : found) {
    v1::ModelInfo& info = *response.add_models();
    info.set_name(name);
    info.set_context_tokens(model.identity.context_tokens);
    info.set_vocabulary_size(model.identity.vocabulary_size);
    info.set_digest(model.identity.digest);
    info.set_ready(model.prefill && model.decode);
  }
  return response.SerializeAsString();
}

void UnaryCall::Finish(const absl::StatusOr<std::string>& response) {
  Begin();
  LimitFinish();
  if (response.ok()) {
    writer_.Finish(ToBuffer(*response), grpc::Status::OK, &finished_);
    return;
  }
  const absl::Status status = WithReason(response.status());
  AddRetryHint(status);
  writer_.FinishWithError(ToGrpc(status), &finished_);
}

}  // namespace baleen::router
