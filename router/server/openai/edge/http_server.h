// The router's HTTP port: the OpenAI API, health and readiness.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/server/generation/generation_shard.h"
#include "router/server/http/server.h"
#include "router/server/openai/edge/api_handler.h"

namespace baleen::router::openai {

struct HttpServerOptions {
  http::Options http;
  GenerationOptions generation;
};

class HttpServer {
 public:
  // Listens and serves. INVALID_ARGUMENT or ALREADY_EXISTS names the address. `parts` is borrowed.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const HttpServerOptions& options,
                                                           const GenerationShardParts& parts,
                                                           http::TlsContexts tls = nullptr);
  // Precondition: as of InferenceServer, and no text job is left.
  ~HttpServer();

  // Ends all requests, connections and threads.
  void Stop() { server_->Stop(); }

  const std::string& address() const { return server_->address(); }

  // What /readyz answers. Any thread. Serving from the start.
  void SetServing(bool serving) { serving_.store(serving); }

 private:
  HttpServer() = default;

  std::atomic<bool> serving_{true};
  std::unique_ptr<http::Server> server_;
  std::vector<std::unique_ptr<ApiHandler>> handlers_;
};

}  // namespace baleen::router::openai
