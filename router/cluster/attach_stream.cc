#include "router/cluster/attach_stream.h"

#include <fmt/format.h>

#include <utility>

#include "observability/base/log.h"
#include "router/cluster/grpc_support.h"

namespace baleen::router {

AttachStream::AttachStream(const AttachContext& context)
    : context_(context),
      stream_(&call_),
      called_([this](bool ok) { OnCall(ok); }),
      read_([this](bool ok) { OnRead(ok); }),
      written_([this](bool ok) { OnWritten(ok); }),
      finished_([this](bool) { OnFinished(); }) {
  ++operations_;
  context_.service.RequestAttach(&call_, &stream_, context_.queue, context_.queue, &called_);
}

void AttachStream::OnCall(bool ok) {
  --operations_;
  if (!ok) {  // the server is shutting down
    phase_ = Phase::kOver;
    return;
  }
  phase_ = Phase::kHello;
  until_ = context_.clock.Monotonic() + context_.hello_wait_max;
  Read();
  context_.on_called();
}

void AttachStream::Read() {
  ++operations_;
  stream_.Read(&incoming_, &read_);
}

void AttachStream::OnRead(bool ok) {
  --operations_;
  if (phase_ == Phase::kClosing || phase_ == Phase::kOver) {
    if (ok && worker_) context_.on_stale();
    return;
  }
  if (!ok) {
    if (worker_) context_.registry.Detach(*worker_, "its stream has ended");
    Close(absl::OkStatus());
    return;
  }
  if (phase_ == Phase::kHello) {
    TakeHello();
  } else if (absl::Status status = TakeFrame(); !status.ok()) {
    log::Error("worker sent a bad frame",
               {{"worker", info_->name}, {"error", std::string(status.message())}});
    context_.registry.Detach(*worker_, "it sent a bad frame");
    Close(std::move(status));
  }
  if (phase_ == Phase::kAttached) Read();
}

void AttachStream::TakeHello() {
  if (!incoming_.has_hello()) {
    Close(absl::FailedPreconditionError("the first message must be Hello"));
    return;
  }
  absl::StatusOr<WorkerInfo> info = FromWire(incoming_.hello());
  if (!info.ok()) {
    Close(info.status());
    return;
  }
  info_ = std::make_shared<const WorkerInfo>(*info);
  // Attaching may start requests at once; Welcome goes before them, but only when the worker is
  // taken.
  phase_ = Phase::kAttached;
  Enqueue(ToWire(context_.welcome));
  const absl::StatusOr<WorkerId> worker =
      context_.registry.Attach(*std::move(info), incoming_.hello().protocol_version(), *this);
  if (!worker.ok()) {
    log::Warning("worker refused", {{"worker", info_->name.substr(0, 128)},
                                    {"why", std::string(worker.status().message())}});
    outgoing_.clear();
    Close(worker.status());
    return;
  }
  worker_ = *worker;
  WriteNext();
}

absl::Status AttachStream::TakeFrame() {
  if (!context_.registry.Heard(*worker_)) {
    context_.on_stale();
    return absl::OkStatus();
  }
  switch (incoming_.body_case()) {
    case v1::WorkerMessage::kLoad:
      context_.dispatcher.OnLoad(*worker_, FromWire(incoming_.load()));
      return absl::OkStatus();
    case v1::WorkerMessage::kStep: {
      absl::StatusOr<std::vector<TokenFrame>> tokens = FromWire(incoming_.step(), *info_);
      if (!tokens.ok()) return tokens.status();
      context_.dispatcher.OnTokens(*worker_, *std::move(tokens));
      if (incoming_.step().has_load()) {
        context_.dispatcher.OnLoad(*worker_, FromWire(incoming_.step().load()));
      }
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kPromptLogprobs: {
      absl::StatusOr<PromptLogprobsFrame> logprobs = FromWire(incoming_.prompt_logprobs(), *info_);
      if (!logprobs.ok()) return logprobs.status();
      context_.dispatcher.OnPromptLogprobs(*worker_, *std::move(logprobs));
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kCacheEvents: {
      const absl::StatusOr<CacheEventsFrame> events = FromWire(incoming_.cache_events());
      if (!events.ok()) return events.status();
      context_.dispatcher.OnCacheEvents(*worker_, *events);
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kEnded: {
      absl::StatusOr<EndedFrame> ended = FromWire(incoming_.ended());
      if (!ended.ok()) return ended.status();
      context_.dispatcher.OnEnded(*worker_, *std::move(ended));
      return absl::OkStatus();
    }
    case v1::WorkerMessage::kHello:
      return absl::InvalidArgumentError("a second Hello");
    case v1::WorkerMessage::BODY_NOT_SET:
      // A kind of message that a newer worker knows: it says at least that the worker lives.
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

void AttachStream::Send(RouterFrame frame) {
  if (phase_ == Phase::kAttached) Enqueue(ToWire(frame));
}

void AttachStream::Enqueue(v1::RouterMessage message) {
  const std::size_t bytes = message.ByteSizeLong();
  overfull_ = overfull_ || outgoing_bytes_ + bytes > context_.send_queue_bytes_max;
  if (overfull_) return;  // Tick ends the stream: the dispatcher must not hear of it from in here
  outgoing_bytes_ += bytes;
  outgoing_.push_back(std::move(message));
  WriteNext();
}

void AttachStream::WriteNext() {
  if (writing_ || outgoing_.empty() || !worker_ || phase_ != Phase::kAttached) return;
  writing_ = true;
  ++operations_;
  stream_.Write(outgoing_.front(), &written_);
}

void AttachStream::OnWritten(bool ok) {
  --operations_;
  writing_ = false;
  outgoing_bytes_ -= outgoing_.front().ByteSizeLong();
  outgoing_.pop_front();
  if (phase_ == Phase::kClosing) {
    FinishIfIdle();
  } else if (ok) {
    WriteNext();
  }
  // Not ok: the call is dead, and the read that is outstanding says so.
}

void AttachStream::Close(absl::Status why) {
  if (phase_ == Phase::kClosing || phase_ == Phase::kOver) return;
  phase_ = Phase::kClosing;
  close_status_ = std::move(why);
  until_ = context_.clock.Monotonic() + context_.closing_wait_max;
  FinishIfIdle();
}

void AttachStream::FinishIfIdle() {
  if (writing_ || finishing_) return;
  finishing_ = true;
  ++operations_;
  stream_.Finish(ToGrpc(close_status_), &finished_);
}

void AttachStream::OnFinished() {
  --operations_;
  phase_ = Phase::kOver;
}

void AttachStream::Tick() {
  const absl::Duration now = context_.clock.Monotonic();
  if (phase_ == Phase::kHello && now > until_) {
    Close(absl::DeadlineExceededError(
        fmt::format("no Hello within {}", absl::FormatDuration(context_.hello_wait_max))));
  } else if (phase_ == Phase::kClosing && now > until_) {
    call_.TryCancel();
  } else if (phase_ == Phase::kAttached && overfull_) {
    context_.registry.Detach(*worker_, "it does not take its frames");
    Close(absl::ResourceExhaustedError(
        fmt::format("{} bytes of frames wait for the worker, another one exceeds the limit of {}",
                    outgoing_bytes_, context_.send_queue_bytes_max)));
    call_.TryCancel();
  }
}

}  // namespace baleen::router
