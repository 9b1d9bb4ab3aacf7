// What a client of the OpenAI API is told when a request fails.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "router/server/http/message/message.h"

namespace baleen::router::openai {

// {"error": {"message": .., "type": .., "param": .., "code": ..}}. `code` is the name of the reason
// (docs/errors.md), `param` the field that the message is about, if it is about one.
std::string ErrorBody(const absl::Status& status);

// With the HTTP code of the reason; Retry-After if `retry_after` is not zero.
http::Response ErrorResponse(const absl::Status& status,
                             absl::Duration retry_after = absl::ZeroDuration());

}  // namespace baleen::router::openai
