// The gRPC client of a router: the only file of the command line that talks gRPC.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/inference.pb.h"
#include "tools/cli/client/request_options.h"

namespace grpc {
class ClientContext;
}

namespace baleen::cli {

// Lets another thread end a running call. Reusable: Reset before the next call. Thread-safe.
class Cancellation {
 public:
  // Ends the running call, or the next one if none runs: it returns CANCELLED.
  void Cancel();
  void Reset();
  bool cancelled() const;

 private:
  friend class InferenceClient;
  void Attach(grpc::ClientContext* context);
  void Detach() { Attach(nullptr); }

  mutable std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;
  bool cancelled_ = false;
};

// Thread-safe. Errors are the router's statuses: code and message; UNAVAILABLE when it can not be
// reached, DEADLINE_EXCEEDED after `within`.
class InferenceClient {
 public:
  // Does not connect yet. `address` is host:port.
  explicit InferenceClient(const std::string& address);
  // Reads the endpoint's files. Errors name them.
  static absl::StatusOr<std::unique_ptr<InferenceClient>> Open(const RouterEndpoint& endpoint);
  ~InferenceClient();

  absl::StatusOr<v1::ListModelsResponse> ListModels(absl::Duration within) const;

  // Streams the reply to `on_chunk`, on this thread.
  absl::Status Chat(const v1::ChatRequest& request, absl::Duration within,
                    Cancellation& cancellation,
                    const std::function<void(const v1::ChatChunk&)>& on_chunk) const;
  absl::Status Generate(const v1::GenerateRequest& request, absl::Duration within,
                        Cancellation& cancellation,
                        const std::function<void(const v1::GenerateChunk&)>& on_chunk) const;

 private:
  struct Stub;
  explicit InferenceClient(std::unique_ptr<Stub> stub);
  std::unique_ptr<Stub> stub_;
};

}  // namespace baleen::cli
