// Bodies of the OpenAI API as messages of inference.proto: what HTTP can ask for, gRPC can. Ranges
// are not checked here but where gRPC's are (router/server/request); here a number only has to fit
// the type of its field.
//
// Fields that change nothing we do are skipped (`user`, `metadata`, ...); others that we do not
// know are refused by name: a client that asks for something must not believe that it got it.
// docs/http-api.md lists them.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "proto/baleen/v1/inference.pb.h"
#include "router/server/openai/request/reply_form.h"

namespace baleen::router::openai {

struct ChatBody {
  v1::ChatRequest message;
  ReplyForm form;
};

struct CompletionBody {
  v1::GenerateRequest message;
  ReplyForm form;
};

// Errors are kInvalidRequest, "field.path: what is wrong"; they never quote texts.
absl::StatusOr<ChatBody> ReadChatBody(std::string_view body);
absl::StatusOr<CompletionBody> ReadCompletionBody(std::string_view body);
// Of POST /tokenize: {"prompt": text} or {"messages": [...], "tools": [...]}.
absl::StatusOr<v1::TokenizeRequest> ReadTokenizeBody(std::string_view body);

}  // namespace baleen::router::openai
