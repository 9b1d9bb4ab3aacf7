#include "tests/worker/attach/fake_router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>

namespace baleen::worker {

FakeRouter::FakeRouter(const FakeRouterOptions& options) : options_(options) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<v1::Worker::Service*>(this));
  builder.SetMaxSendMessageSize(-1);
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr) << options.listen;
  address_ = "127.0.0.1:" + std::to_string(port);
}

FakeRouter::~FakeRouter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  changed_.notify_all();
  server_->Shutdown(std::chrono::system_clock::now());
}

grpc::Status FakeRouter::Attach(grpc::ServerContext* context, Stream* stream) {
  v1::WorkerMessage message;
  if (!stream->Read(&message) || !message.has_hello()) {
    return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no Hello");
  }
  if (options_.welcomes) {
    v1::RouterMessage welcome;
    welcome.mutable_welcome()->set_router(options_.number);
    welcome.mutable_welcome()->set_heartbeat_ms(options_.heartbeat_ms);
    stream->Write(welcome);
  }
  {
    std::lock_guard lock(mutex_);
    hello_ = message.hello();
    ++hellos_;
    stream_ = stream;
    context_ = context;
    if (stopping_) context->TryCancel();
  }
  changed_.notify_all();
  if (!options_.reads) Wait([context] { return context->IsCancelled(); }, "the worker to give up");
  while (!options_.refusal.has_value() && stream->Read(&message)) {
    {
      std::lock_guard lock(mutex_);
      heard_.push_back(message);
    }
    changed_.notify_all();
  }
  std::lock_guard lock(mutex_);
  if (stream_ == stream) {  // else another one has begun
    stream_ = nullptr;
    context_ = nullptr;
  }
  return options_.refusal.value_or(grpc::Status::OK);
}

void FakeRouter::Wait(const std::function<bool()>& condition, const char* what) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  std::unique_lock lock(mutex_);
  // The short waits are for conditions that nobody announces, as IsCancelled.
  while (!condition() && !stopping_) {
    changed_.wait_for(lock, std::chrono::milliseconds(20));
    if (std::chrono::steady_clock::now() > limit) {
      ADD_FAILURE() << "waited in vain for " << what;
      return;
    }
  }
}

void FakeRouter::AwaitHellos(std::size_t count) {
  Wait([this, count] { return hellos_ >= count; }, "Hello");
}

v1::WorkerMessage FakeRouter::Await(v1::WorkerMessage::BodyCase kind) {
  return AwaitWhere([kind](const auto& message) { return message.body_case() == kind; });
}

v1::WorkerMessage FakeRouter::AwaitNext() {
  return AwaitWhere([](const auto&) { return true; });
}

v1::WorkerMessage FakeRouter::AwaitWhere(
    const std::function<bool(const v1::WorkerMessage&)>& wanted) {
  v1::WorkerMessage found;
  Wait(
      [this, &wanted, &found] {
        const auto it = std::find_if(heard_.begin(), heard_.end(), wanted);
        if (it == heard_.end()) return false;
        found = *it;
        heard_.erase(it);
        return true;
      },
      "a message of the worker");
  return found;
}

void FakeRouter::Send(const v1::RouterMessage& message) {
  Wait([this] { return stream_ != nullptr; }, "a stream");
  std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->Write(message);
}

void FakeRouter::EndStream() {
  std::lock_guard lock(mutex_);
  if (context_ != nullptr) context_->TryCancel();
}

std::size_t FakeRouter::hellos() {
  std::lock_guard lock(mutex_);
  return hellos_;
}

v1::Hello FakeRouter::hello() {
  std::lock_guard lock(mutex_);
  return hello_;
}

}  // namespace baleen::worker
