#include "router/server/generation_call.h"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "proto/contract/status.h"
#include "router/cluster/grpc_support.h"
#include "router/server/chunk.h"
#include "router/server/request/read_request.h"

namespace baleen::router {
namespace {

// What is left of the client's deadline.
absl::Duration TimeLeft(const grpc::ServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteDuration();
  return absl::FromChrono(deadline - std::chrono::system_clock::now());
}

std::string_view Metadata(const grpc::ServerContext& context, const char* key) {
  const auto it = context.client_metadata().find(key);
  if (it == context.client_metadata().end()) return {};
  return {it->second.data(), it->second.size()};
}

}  // namespace

GenerationCall::GenerationCall(const CallContext& context, Method method)
    : Call(context, method),
      chat_(method == Method::kChat),
      writer_(&server_context()),
      written_([this](bool ok) { OnWritten(ok); }),
      finished_([this](bool) {
        EndWrite();
        SetOver();
      }),
      generation_(context.generations, *this) {
  grpc::ServerCompletionQueue* queue = context.loop.queue();
  if (chat_) {
    context.service.RequestChat(&server_context(), &request(), &writer_, queue, queue, &called());
  } else {
    context.service.RequestGenerate(&server_context(), &request(), &writer_, queue, queue,
                                    &called());
  }
}

void GenerationCall::OnRequest(std::string_view bytes) {
  generation_.Begin(
      chat_ ? ParseChat(bytes) : ParseGenerate(bytes),
      {.bytes = bytes.size(),
       .deadline = parts_.clock.Monotonic() + TimeLeft(server_context()),
       .caller = parts_.access.keys->Authenticate(Metadata(server_context(), "authorization")),
       .explain = Metadata(server_context(), "baleen-debug") == "route"});
}

void GenerationCall::OnGone() {
  const bool late = TimeLeft(server_context()) <= absl::ZeroDuration();
  generation_.Abandon(contract::MakeStatus(
      late ? contract::Reason::kDeadlineExceeded : contract::Reason::kCancelled,
      "the client is gone"));
}

void GenerationCall::OnReady() {
  if (writing_ || is_over()) return;
  const auto& status = generation_.status();
  if (status && !status->ok()) {
    Finish(*status);
    return;
  }
  if (!generation_.ready()) return;
  ReplyPart part = generation_.Take();
  const bool last = part.totals.has_value();
  if (last) AddRoute();
  const std::string chunk = SerializeChunk(chat_, generation_, std::move(part));
  writing_ = true;
  BeginWrite();
  if (last) {
    writer_.WriteAndFinish(ToBuffer(chunk), grpc::WriteOptions(), grpc::Status::OK, &finished_);
  } else {
    writer_.Write(ToBuffer(chunk), &written_);
  }
}

void GenerationCall::Finish(const absl::Status& status) {
  AddRetryHint(generation_.retry_after());
  AddRoute();
  writing_ = true;
  BeginWrite();
  writer_.Finish(ToGrpc(status), &finished_);
}

void GenerationCall::AddRoute() {
  if (generation_.route_text().empty()) return;
  server_context().AddTrailingMetadata("baleen-route", generation_.route_text());
}

void GenerationCall::OnWritten(bool ok) {
  EndWrite();
  writing_ = false;
  if (!ok) return;  // the client is gone, and OnGone says so
  if (generation_.status() && !generation_.status()->ok()) {
    OnReady();
  } else {
    generation_.Flush();
  }
}

}  // namespace baleen::router
