// What is done for one HTTP request of the OpenAI API: a generation, or a tokenization, and its
// answer. On the thread of the handler.
#pragma once

#include <memory>

#include "router/server/http/handler.h"
#include "router/server/openai/edge/api_handler.h"

namespace baleen::router::openai {

// All outlive the activity but the request.
std::unique_ptr<http::Activity> StartChat(ApiHandler& api, http::Exchange& exchange,
                                          const http::Request& request);
std::unique_ptr<http::Activity> StartCompletion(ApiHandler& api, http::Exchange& exchange,
                                                const http::Request& request);
std::unique_ptr<http::Activity> StartTokenization(ApiHandler& api, http::Exchange& exchange,
                                                  const http::Request& request);

}  // namespace baleen::router::openai
