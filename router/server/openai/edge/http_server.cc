#include "router/server/openai/edge/http_server.h"

#include <algorithm>
#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::router::openai {

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              const GenerationShardParts& parts,
                                                              http::TlsContexts tls) {
  http::Options http = options.http;
  // Parts whose time has come are looked for at every tick.
  if (options.generation.flush_interval > absl::ZeroDuration()) {
    http.tick = std::clamp(options.generation.flush_interval / 8, absl::Milliseconds(1), http.tick);
  }
  std::unique_ptr<HttpServer> self(new HttpServer());
  BALEEN_ASSIGN_OR_RETURN(self->server_,
                          http::Server::Listen(http, parts.server.clock, std::move(tls)));
  std::vector<http::Handler*> handlers;
  for (std::size_t i = 0; i < self->server_->loops(); ++i) {
    self->handlers_.push_back(std::make_unique<ApiHandler>(
        self->server_->loop(i), options.generation, parts, self->serving_));
    handlers.push_back(self->handlers_.back().get());
  }
  self->server_->Start(handlers);
  return self;
}

HttpServer::~HttpServer() {
  if (server_ != nullptr) server_->Stop();
}

}  // namespace baleen::router::openai
