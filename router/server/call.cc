#include "router/server/call.h"

#include <fmt/format.h>

#include <utility>

#include "proto/contract/status.h"
#include "router/cluster/grpc_support.h"
#include "router/server/request/read_request.h"
#include "router/server/served_models.h"

namespace baleen::router {

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

Call::Call(const CallContext& context, Method method)
    : context_(context),
      parts_(context.generations.parts()),
      method_(method),
      called_([this](bool ok) { OnCalled(ok); }),
      done_([this](bool) { OnDone(); }) {
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
  if (over_ || !server_context_.IsCancelled()) return;
  SetOver();
  OnGone();
}

void Call::BeginWrite() {
  Begin();
  write_until_ = parts_.clock.Monotonic() + context_.write_wait_max;
}

void Call::EndWrite() {
  End();
  write_until_ = absl::InfiniteDuration();
}

void Call::Tick() {
  // The call would stay, with all that it holds, for as long as the client likes.
  if (!over_ && parts_.clock.Monotonic() > write_until_) server_context_.TryCancel();
}

void Call::AddRetryHint(absl::Duration retry_after) {
  if (retry_after == absl::ZeroDuration()) return;
  server_context_.AddTrailingMetadata("retry-after-ms",
                                      fmt::format("{}", absl::ToInt64Milliseconds(retry_after)));
}

// --- Tokenize and ListModels ---

UnaryCall::UnaryCall(const CallContext& context, Method method)
    : Call(context, method),
      tokenize_(method == Method::kTokenize),
      writer_(&server_context()),
      finished_([this](bool) {
        EndWrite();
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
    v1::ListModelsResponse response;
    for (const ModelListing& model : ListModels(*parts_.view())) {
      v1::ModelInfo& info = *response.add_models();
      info.set_name(model.identity.name);
      info.set_context_tokens(model.identity.context_tokens);
      info.set_vocabulary_size(model.identity.vocabulary_size);
      info.set_digest(model.identity.digest);
      info.set_ready(model.ready);
    }
    Finish(response.SerializeAsString());
    return;
  }
  tokenization_ = std::make_unique<Tokenization>(
      context_.generations, ParseTokenize(bytes), bytes.size(),
      [this](const absl::StatusOr<TokenIds>& ids, absl::Duration retry_after) {
        AddRetryHint(retry_after);
        if (!ids.ok()) {
          Finish(ids.status());
          return;
        }
        v1::TokenizeResponse response;
        response.mutable_token_ids()->Add(ids->begin(), ids->end());
        Finish(response.SerializeAsString());
      });
}

void UnaryCall::Finish(const absl::StatusOr<std::string>& response) {
  BeginWrite();
  if (response.ok()) {
    writer_.Finish(ToBuffer(*response), grpc::Status::OK, &finished_);
  } else {
    writer_.FinishWithError(ToGrpc(response.status()), &finished_);
  }
}

}  // namespace baleen::router
