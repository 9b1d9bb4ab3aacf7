#include "router/server/openai/reply/error_body.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "proto/contract/status.h"
#include "router/server/openai/json/writer.h"

namespace baleen::router::openai {
namespace {

using contract::Reason;

// The classes that clients know.
std::string_view TypeOf(int code) {
  switch (code) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    default:
      return code < 500 ? "invalid_request_error" : "server_error";
  }
}

// "messages[3].content" of "messages[3].content: it is a number, not a string", or of
// "messages[3].content is ..."; empty if the text does not begin with a field.
std::string_view FieldOf(std::string_view message) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789_.[]";
  const std::size_t end = std::min(message.find_first_not_of(kLetters), message.size());
  const bool stands_alone = end < message.size() && message[end] == ':';
  return stands_alone ? message.substr(0, end) : std::string_view();
}

}  // namespace

std::string ErrorBody(const absl::Status& status) {
  const std::string whole(status.message());
  std::string_view message = whole;
  const auto reason = contract::ReasonOf(status);
  const std::string_view code = contract::RowOf(reason.value_or(Reason::kInternal)).name;
  if (reason) message.remove_prefix(code.size() + 2);
  const std::string_view field =
      reason == Reason::kInvalidRequest ? FieldOf(message) : std::string_view();
  std::string out = "{\"error\":{\"message\":";
  json::AppendBytesAsString(message, &out);
  out += ",\"type\":";
  json::AppendString(TypeOf(contract::HttpCode(status)), &out);
  out += ",\"param\":";
  if (field.empty()) {
    out += "null";
  } else {
    json::AppendString(field, &out);
  }
  out += ",\"code\":";
  json::AppendString(code, &out);
  out += "}}";
  return out;
}

http::Response ErrorResponse(const absl::Status& status, absl::Duration retry_after) {
  http::Response response{.code = contract::HttpCode(status), .body = ErrorBody(status)};
  if (retry_after > absl::ZeroDuration()) {
    const std::int64_t ms = std::max<std::int64_t>(1, absl::ToInt64Milliseconds(retry_after));
    response.fields.push_back({"Retry-After", fmt::format("{}", (ms + 999) / 1000)});
    response.fields.push_back({"retry-after-ms", fmt::format("{}", ms)});
  }
  if (response.code == 401) response.fields.push_back({"WWW-Authenticate", "Bearer"});
  return response;
}

}  // namespace baleen::router::openai
