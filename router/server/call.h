// What the calls of all methods share: being accepted, their one request message, the client's
// going away, and their one ending.
//
// A call belongs to the thread of its Shard. It is destroyed when it is over and gRPC holds none of
// its tags.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "proto/baleen/v1/inference.grpc.pb.h"
#include "router/admission/admission.h"
#include "router/cluster/event_loop.h"
#include "router/dispatch/links.h"
#include "router/policy/cluster_view.h"
#include "router/server/reply_inbox.h"
#include "router/server/request/models.h"
#include "router/server/request/prompt.h"
#include "router/server/text_pool.h"

namespace baleen::router {

// Bytes in and out: messages are parsed here, so that a malformed one is the client's error with a
// reason.
using InferenceService = v1::Inference::WithRawMethod_Chat<
    v1::Inference::WithRawMethod_Generate<v1::Inference::WithRawMethod_Tokenize<
        v1::Inference::WithRawMethod_ListModels<v1::Inference::Service>>>>;

enum class Method : std::uint8_t { kChat, kGenerate, kTokenize, kListModels };

// Borrowed; all outlive the server.
struct ServerParts {
  std::uint64_t router = 0;  // this router's random number
  const Clock& clock;
  const Models& models;
  Admission& admission;
  RequestPort& port;
  std::function<std::shared_ptr<const ClusterView>()> view;  // any thread
  metrics::RouterMetrics& metrics;
};

// What a shard's calls share.
struct CallContext {
  const ServerParts& parts;
  InferenceService& service;
  EventLoop& loop;
  TextPool& text_pool;
  ReplySink& sink;
  absl::Duration request_wait_max;  // the longest deadline of a request
  absl::Duration finish_wait_max;   // for a client to take one of the last chunks of its stream
  std::function<std::uint64_t()> next_number;
  std::function<void(Method)> accept;  // wait for the next call of that method
  // What a text job makes goes to the call of that number, if it is still there.
  std::function<void(std::uint64_t, absl::StatusOr<Prompt>)> deliver_prompt;
};

class Call {
 public:
  virtual ~Call() = default;

  std::uint64_t number() const { return number_; }
  bool over() const { return over_ && operations_ == 0; }

  // The prompt that SubmitText asked for.
  virtual void OnPrompt(absl::StatusOr<Prompt> prompt) = 0;
  // From dispatch.
  virtual void OnReply(Reply) {}
  // Every few tens of milliseconds: gives up a client that does not take the end of its call.
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

  // False when the pool is full. Otherwise OnPrompt follows, unless the client goes.
  bool SubmitText(const ModelText& model, PromptSource source);

  // Trailing metadata of a refusal that waiting may cure.
  void AddRetryHint(const absl::Status& status);
  // Counts the request by outcome.
  void Count(const absl::Status& status);

  // Operations that gRPC holds a tag of.
  void Begin() { ++operations_; }
  void End() { --operations_; }
  void SetOver() { over_ = true; }
  bool is_over() const { return over_; }

  // The call is ending: the client has finish_wait_max from now to take what is to be written next.
  void LimitFinish();

  const CallContext& context_;
  const ServerParts& parts_;

 private:
  void OnCalled(bool ok);
  void OnDone();

  const Method method_;
  const std::uint64_t number_;
  Tag called_;
  Tag done_;
  grpc::ServerContext server_context_;
  grpc::ByteBuffer request_;
  absl::Duration finish_until_ = absl::InfiniteDuration();
  int operations_ = 1;  // being called
  bool over_ = false;
  std::shared_ptr<std::atomic<bool>> gone_;
};

// A status with a reason: others are bugs.
absl::Status WithReason(const absl::Status& status);

grpc::ByteBuffer ToBuffer(const std::string& bytes);

// Tokenize and ListModels.
class UnaryCall final : public Call {
 public:
  UnaryCall(const CallContext& context, Method method);

 private:
  void OnRequest(std::string_view bytes) override;
  void OnPrompt(absl::StatusOr<Prompt> prompt) override;
  void OnGone() override {}

  absl::Status StartTokenize(std::string_view bytes);
  std::string ListModels() const;
  void Finish(const absl::StatusOr<std::string>& response);

  const bool tokenize_;
  grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer_;
  Tag finished_;
  Admission::Ticket ticket_;
};

}  // namespace baleen::router
