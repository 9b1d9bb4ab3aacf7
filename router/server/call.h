// What the calls of all methods share: being accepted, their one request message, the client's
// going away, and their one ending.
//
// A call belongs to the thread of its Shard. It is destroyed when it is over and gRPC holds none of
// its tags.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/inference.grpc.pb.h"
#include "router/cluster/event_loop.h"
#include "router/server/generation/generation_shard.h"
#include "router/server/generation/tokenization.h"

namespace baleen::router {

// Bytes in and out: messages are parsed here, so that a malformed one is the client's error with a
// reason.
using InferenceService = v1::Inference::WithRawMethod_Chat<
    v1::Inference::WithRawMethod_Generate<v1::Inference::WithRawMethod_Tokenize<
        v1::Inference::WithRawMethod_ListModels<v1::Inference::Service>>>>;

enum class Method : std::uint8_t { kChat, kGenerate, kTokenize, kListModels };

// What a shard's calls share.
struct CallContext {
  GenerationShard& generations;
  InferenceService& service;
  EventLoop& loop;
  absl::Duration write_wait_max;       // for a client to take one message
  std::function<void(Method)> accept;  // wait for the next call of that method
};

class Call {
 public:
  virtual ~Call() = default;

  bool over() const { return over_ && operations_ == 0; }

  // Every few tens of milliseconds: gives up a client that does not take what is written.
  void Tick();

 protected:
  Call(const CallContext& context, Method method);

  // For the derived constructor: before the call is requested, and the tag to request it with.
  grpc::ServerContext& server_context() { return server_context_; }
  grpc::ByteBuffer& request() { return request_; }
  Tag& called() { return called_; }

  // The request message is here.
  virtual void OnRequest(std::string_view bytes) = 0;
  // The client is gone before the call was finished; the call is over.
  virtual void OnGone() = 0;

  // Trailing metadata of a refusal that waiting may cure.
  void AddRetryHint(absl::Duration retry_after);

  // Operations that gRPC holds a tag of.
  void Begin() { ++operations_; }
  void End() { --operations_; }
  void SetOver() { over_ = true; }
  bool is_over() const { return over_; }

  // A write begins, which the client has write_wait_max to take, and is done.
  void BeginWrite();
  void EndWrite();

  const CallContext& context_;
  const ServerParts& parts_;

 private:
  void OnCalled(bool ok);
  void OnDone();

  const Method method_;
  Tag called_;
  Tag done_;
  grpc::ServerContext server_context_;
  grpc::ByteBuffer request_;
  absl::Duration write_until_ = absl::InfiniteDuration();
  int operations_ = 1;  // being called
  bool over_ = false;
};

grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Tokenize and ListModels.
class UnaryCall final : public Call {
 public:
  UnaryCall(const CallContext& context, Method method);

 private:
  void OnRequest(std::string_view bytes) override;
  void OnGone() override { tokenization_.reset(); }

  void Finish(const absl::StatusOr<std::string>& response);

  const bool tokenize_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer_;
  Tag finished_;
  std::unique_ptr<Tokenization> tokenization_;
};

}  // namespace baleen::router
