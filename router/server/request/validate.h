// From the bytes of a client's message to a request whose every field is within its limits. The one
// place where the ranges of inference.proto are checked; what depends on the model comes later
// (prompt.h).
//
// Every error is a contract::Reason that names the field, its value and the limit; never prompt
// text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "router/dispatch/messages.h"
#include "router/text/chat_template.h"

namespace baleen::router {

struct ChatTurn {
  ChatRole role = ChatRole::kUser;
  std::string content;
};

// Messages for the chat template, text that is the prompt, or the prompt's token ids.
using PromptSource = std::variant<std::vector<ChatTurn>, std::string, TokenIds>;

struct GenerationRequest {
  std::string model;  // may be empty
  PromptSource prompt;
  Sampling sampling;  // with a seed: the client's, or one that was drawn
  std::optional<std::uint32_t> tokens_max;
  bool ignore_eos = false;
  bool return_prompt_token_ids = false;
};

struct TokenizationRequest {
  std::string model;
  PromptSource prompt;  // not token ids
};

// Of one serialized message each. Nothing is allocated that is not in proportion to a list that was
// counted first.
absl::StatusOr<GenerationRequest> ReadChatRequest(std::string_view bytes);
absl::StatusOr<GenerationRequest> ReadGenerateRequest(std::string_view bytes);
absl::StatusOr<TokenizationRequest> ReadTokenizeRequest(std::string_view bytes);

}  // namespace baleen::router
