// POST /tokenize.
#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>

#include "router/server/generation/tokenization.h"
#include "router/server/openai/edge/activities.h"
#include "router/server/openai/reply/error_body.h"
#include "router/server/openai/reply/reply_json.h"
#include "router/server/openai/request/request.h"
#include "router/server/request/read_request.h"

namespace baleen::router::openai {
namespace {

class TokenizationActivity final : public http::Activity {
 public:
  TokenizationActivity(ApiHandler& handler, http::Exchange& exchange,
                       absl::StatusOr<TokenizationRequest> request, std::size_t bytes)
      : tokenization_(handler.generations(), std::move(request), bytes,
                      [&exchange](const absl::StatusOr<TokenIds>& ids, absl::Duration retry_after) {
                        exchange.Respond(Answer(ids, retry_after));
                      }) {}

 private:
  static http::Response Answer(const absl::StatusOr<TokenIds>& ids, absl::Duration retry_after) {
    if (!ids.ok()) return ErrorResponse(ids.status(), retry_after);
    std::string body = fmt::format("{{\"count\":{},\"tokens\":", ids->size());
    AppendTokenIds(*ids, &body);
    return {.body = body + "}"};
  }

  Tokenization tokenization_;
};

}  // namespace

std::unique_ptr<http::Activity> StartTokenization(ApiHandler& api, http::Exchange& exchange,
                                                  const http::Request& request) {
  absl::StatusOr<v1::TokenizeRequest> message = ReadTokenizeBody(request.body);
  return std::make_unique<TokenizationActivity>(
      api, exchange,
      message.ok() ? ReadTokenize(*std::move(message))
                   : absl::StatusOr<TokenizationRequest>(message.status()),
      request.body.size());
}

}  // namespace baleen::router::openai
