#include "router/server/openai/edge/api_handler.h"

#include <fmt/format.h>

#include <utility>

#include "proto/contract/status.h"
#include "router/server/openai/edge/activities.h"
#include "router/server/openai/json/writer.h"
#include "router/server/openai/reply/error_body.h"
#include "router/server/openai/request/request.h"
#include "router/server/request/read_request.h"
#include "router/server/served_models.h"

namespace baleen::router::openai {
namespace {

using contract::MakeStatus;
using contract::Reason;

enum class Endpoint : std::uint8_t {
  kChat,
  kCompletions,
  kTokenize,
  kModels,
  kHealth,
  kReadiness,
};

struct Route {
  std::string_view path;
  Endpoint endpoint;
  bool posts;          // POST, else GET
  bool heads = false;  // HEAD too
  bool is_prefix = false;
};

constexpr Route kRoutes[] = {
    {"/v1/chat/completions", Endpoint::kChat, true},
    {"/v1/completions", Endpoint::kCompletions, true},
    {"/tokenize", Endpoint::kTokenize, true},
    {"/v1/models", Endpoint::kModels, false},
    {"/v1/models/", Endpoint::kModels, false, false, true},
    {"/healthz", Endpoint::kHealth, false, true},
    {"/readyz", Endpoint::kReadiness, false, true},
};

const Route* FindRoute(std::string_view path) {
  for (const Route& route : kRoutes) {
    if (path == route.path || (route.is_prefix && path.starts_with(route.path))) return &route;
  }
  return nullptr;
}

// Of the media type, before any parameter; clients that send none are believed.
bool IsJson(std::string_view content_type) {
  constexpr std::string_view kJson = "application/json";
  const std::string_view type = content_type.substr(0, content_type.find_first_of("; \t"));
  if (type.empty()) return content_type.empty();
  return type.size() == kJson.size() &&
         std::equal(type.begin(), type.end(), kJson.begin(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

http::Response Text(int code, std::string body) {
  return {.code = code, .content_type = "text/plain; charset=utf-8", .body = std::move(body)};
}

}  // namespace

ApiHandler::ApiHandler(http::Loop& loop, const GenerationOptions& options,
                       const GenerationShardParts& parts, const std::atomic<bool>& serving)
    : generations_(options, parts,
                   [&loop](absl::AnyInvocable<void()> work) { loop.Post(std::move(work)); }),
      serving_(serving),
      started_(parts.server.clock.Wall()) {}

http::Response ApiHandler::MakeError(int code, std::string_view why) {
  http::Response response =
      ErrorResponse(MakeStatus(code < 500 ? Reason::kInvalidRequest : Reason::kQueueFull, why));
  response.code = code;
  return response;
}

std::optional<http::Response> ApiHandler::Refuse(const http::RequestHead& head) {
  const Route* route = FindRoute(head.path);
  if (route == nullptr) return MakeError(404, "there is nothing at this path");
  const bool allowed = route->posts
                           ? head.method == "POST"
                           : head.method == "GET" || (route->heads && head.method == "HEAD");
  if (!allowed) {
    http::Response response = MakeError(405, "this path does not take this method");
    response.fields.push_back({"Allow", route->posts   ? "POST"
                                        : route->heads ? "GET, HEAD"
                                                       : "GET"});
    return response;
  }
  if (route->posts && !IsJson(head.content_type)) {
    return MakeError(415, "the Content-Type is not application/json");
  }
  // Probes need no key. Of others it is looked at here too, so that nobody without one makes us
  // read a body.
  if (route->endpoint != Endpoint::kHealth && route->endpoint != Endpoint::kReadiness) {
    const auto caller = parts().access.keys->Authenticate(head.authorization);
    if (!caller.ok()) return ErrorResponse(caller.status());
  }
  return std::nullopt;
}

std::unique_ptr<http::Activity> ApiHandler::Handle(http::Request request,
                                                   http::Exchange& exchange) {
  switch (FindRoute(request.head.path)->endpoint) {
    case Endpoint::kChat:
      return StartChat(*this, exchange, request);
    case Endpoint::kCompletions:
      return StartCompletion(*this, exchange, request);
    case Endpoint::kTokenize:
      return StartTokenization(*this, exchange, request);
    case Endpoint::kModels:
      exchange.Respond(Models(request.head.path));
      return nullptr;
    case Endpoint::kHealth:
      exchange.Respond(Text(200, "ok\n"));
      return nullptr;
    case Endpoint::kReadiness:
      exchange.Respond(Readiness());
      return nullptr;
  }
  return nullptr;
}

http::Response ApiHandler::Readiness() const {
  if (!serving_) return Text(503, "draining: this router is shutting down\n");
  for (const ModelListing& model : ListModels(*parts().view())) {
    if (model.ready) return Text(200, "ready\n");
  }
  return Text(503, "no_worker: no model has the workers that it needs\n");
}

// All models, or the one whose name follows the path's last slash.
http::Response ApiHandler::Models(std::string_view path) const {
  constexpr std::string_view kOne = "/v1/models/";
  const bool one = path.starts_with(kOne);
  std::string body = one ? "" : "{\"object\":\"list\",\"data\":[";
  bool found = false;
  for (const ModelListing& model : ListModels(*parts().view())) {
    if (one && model.identity.name != path.substr(kOne.size())) continue;
    if (found) body += ',';
    found = true;
    body += "{\"id\":";
    json::AppendString(model.identity.name, &body);
    body += fmt::format(
        ",\"object\":\"model\",\"created\":{},\"owned_by\":\"baleen\",\"max_model_len\":{},"
        "\"vocabulary_size\":{},\"digest\":\"{}\",\"ready\":{}}}",
        absl::ToUnixSeconds(started_), model.identity.context_tokens,
        model.identity.vocabulary_size, model.identity.digest, model.ready);
  }
  if (!one) return {.body = body + "]}"};
  if (found) return {.body = std::move(body)};
  return ErrorResponse(MakeStatus(Reason::kModelNotFound, "no attached worker serves that model"));
}

}  // namespace baleen::router::openai
