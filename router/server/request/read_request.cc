#include "router/server/request/read_request.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "router/server/request/invalid.h"
#include "router/server/request/read_conversation.h"
#include "router/server/request/read_sampling.h"

namespace baleen::router {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

// Entries of the repeated messages at `path` (field numbers, outermost first) in a serialized
// message. An empty message takes two bytes on the wire and forty times that in memory, so they are
// counted before they are parsed. What is malformed counts as it is until there; the parser refuses
// it.
std::size_t CountEntries(std::string_view bytes, std::span<const int> path) {
  CodedInputStream input(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                         static_cast<int>(bytes.size()));
  std::size_t entries = 0;
  while (const std::uint32_t tag = input.ReadTag()) {
    const bool matches =
        WireFormatLite::GetTagFieldNumber(tag) == path.front() &&
        WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (!matches) {
      if (!WireFormatLite::SkipField(&input, tag)) break;
      continue;
    }
    int length = 0;
    const void* data = nullptr;
    int available = 0;
    if (!input.ReadVarintSizeAsInt(&length)) break;
    if (path.size() == 1) {
      ++entries;
    } else if (length > 0) {
      if (!input.GetDirectBufferPointer(&data, &available) || length > available) break;
      entries += CountEntries({static_cast<const char*>(data), static_cast<std::size_t>(length)},
                              path.subspan(1));
    }
    if (!input.Skip(length)) break;
  }
  return entries;
}

// A repeated message and the most entries that it may have.
struct CountedField {
  std::string_view name;
  std::vector<int> path;
  std::size_t entries_max = 0;
};

absl::Status CheckCounts(std::string_view bytes, std::span<const CountedField> fields) {
  for (const CountedField& field : fields) {
    const std::size_t count = CountEntries(bytes, field.path);
    if (count > field.entries_max) {
      return Invalid("{} has {} entries, limit {}", field.name, count, field.entries_max);
    }
  }
  return absl::OkStatus();
}

// `type` is for the error only.
template <typename Message>
absl::StatusOr<Message> Parse(std::string_view bytes, std::string_view type) {
  Message message;
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return message;
  return Invalid("the message is not a {}: it is malformed, or a text in it is not valid UTF-8",
                 type);
}

absl::Status CheckModelName(const std::string& name) {
  if (name.size() <= contract::kModelNameBytesMax) return absl::OkStatus();
  return Invalid("model has {} bytes, limit {}", name.size(), contract::kModelNameBytesMax);
}

absl::StatusOr<std::string> ReadText(std::string& text) {
  if (text.empty()) return Invalid("text is empty");
  if (text.size() > contract::kPromptTextBytesMax) {
    return Invalid("text has {} bytes, limit {}", text.size(), contract::kPromptTextBytesMax);
  }
  return std::move(text);
}

absl::StatusOr<TokenIds> ReadTokenIds(const v1::TokenIds& ids) {
  if (ids.ids().empty()) return Invalid("token_ids is empty");
  if (static_cast<std::uint32_t>(ids.ids_size()) > contract::kContextTokensMax) {
    return contract::MakeStatus(
        contract::Reason::kPromptTooLong,
        fmt::format("token_ids has {} ids, limit {}", ids.ids_size(), contract::kContextTokensMax));
  }
  return TokenIds(ids.ids().begin(), ids.ids().end());
}

absl::StatusOr<PromptSource> ReadPrompt(v1::GenerateRequest& message) {
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText:
      return ReadText(*message.mutable_text());
    case v1::GenerateRequest::kTokenIds:
      return ReadTokenIds(message.token_ids());
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return Invalid("prompt is missing: set text or token_ids");
}

// The fields that Chat and Generate share.
template <typename Message>
absl::Status ReadCommon(Message& message, GenerationRequest& request) {
  BALEEN_RETURN_IF_ERROR(CheckModelName(message.model()));
  request.model = std::move(*message.mutable_model());
  BALEEN_ASSIGN_OR_RETURN(request.sampling, ReadSampling(message.sampling()));
  BALEEN_ASSIGN_OR_RETURN(request.stop, ReadStop(std::move(*message.mutable_stop())));
  if (message.choices() > contract::kChoicesMax) {
    return Invalid("choices {} is not 1 to {}", message.choices(), contract::kChoicesMax);
  }
  request.choices = std::max(message.choices(), 1u);
  if (message.has_priority()) {
    if (message.priority() > contract::kPriorityMax) {
      return Invalid("priority {} is not 0 to {}", message.priority(), contract::kPriorityMax);
    }
    request.priority = message.priority();
  }
  BALEEN_ASSIGN_OR_RETURN(
      request.sampling.logprobs,
      ReadLogprobs("logprobs",
                   message.has_logprobs() ? std::optional(message.logprobs()) : std::nullopt));
  BALEEN_ASSIGN_OR_RETURN(request.format, ReadFormat(*message.mutable_format()));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationRequest> ReadChat(v1::ChatRequest message) {
  GenerationRequest request{.return_prompt_token_ids = message.return_prompt_token_ids(),
                            .chat_reply = true};
  BALEEN_RETURN_IF_ERROR(ReadCommon(message, request));
  Conversation conversation;
  BALEEN_ASSIGN_OR_RETURN(conversation.turns, ReadMessages(*message.mutable_messages()));
  BALEEN_ASSIGN_OR_RETURN(conversation.tools, ReadToolUse(message));
  if (!conversation.tools.tools.empty()) request.tool_mode = conversation.tools.mode;
  request.single_tool_call = conversation.tools.single || !conversation.tools.name.empty();
  if (request.format && request.tool_mode != ToolMode::kNone) {
    return Invalid("format and tools are both set: a reply keeps to one of them");
  }
  request.prompt = std::move(conversation);
  return request;
}

absl::StatusOr<GenerationRequest> ReadGenerate(v1::GenerateRequest message) {
  GenerationRequest request{.echo = message.echo()};
  BALEEN_RETURN_IF_ERROR(ReadCommon(message, request));
  BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadPrompt(message));
  if (message.has_prompt_logprobs()) {
    BALEEN_RETURN_IF_ERROR(ReadLogprobs("prompt_logprobs", message.prompt_logprobs()).status());
    request.prompt_logprobs = message.prompt_logprobs();
  }
  return request;
}

absl::StatusOr<TokenizationRequest> ReadTokenize(v1::TokenizeRequest message) {
  BALEEN_RETURN_IF_ERROR(CheckModelName(message.model()));
  TokenizationRequest request{.model = std::move(*message.mutable_model())};
  switch (message.input_case()) {
    case v1::TokenizeRequest::kText: {
      if (message.tools_size() > 0) return Invalid("tools are for chat, and the input is text");
      BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadText(*message.mutable_text()));
      return request;
    }
    case v1::TokenizeRequest::kChat: {
      Conversation conversation;
      BALEEN_ASSIGN_OR_RETURN(conversation.turns,
                              ReadMessages(*message.mutable_chat()->mutable_messages()));
      BALEEN_ASSIGN_OR_RETURN(conversation.tools.tools, ReadTools(*message.mutable_tools()));
      request.prompt = std::move(conversation);
      return request;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return Invalid("input is missing: set text or chat");
}

absl::StatusOr<GenerationRequest> ParseChat(std::string_view bytes) {
  using Request = v1::ChatRequest;
  const CountedField fields[] = {
      {"messages", {Request::kMessagesFieldNumber}, contract::kMessagesMax},
      {"messages.tool_calls",
       {Request::kMessagesFieldNumber, v1::Message::kToolCallsFieldNumber},
       contract::kMessagesMax},
      {"tools", {Request::kToolsFieldNumber}, contract::kToolsMax},
      {"stop.text",
       {Request::kStopFieldNumber, v1::StopParams::kTextFieldNumber},
       contract::kStopTextsMax},
      {"sampling.logit_bias",
       {Request::kSamplingFieldNumber, v1::SamplingParams::kLogitBiasFieldNumber},
       contract::kLogitBiasesMax}};
  BALEEN_RETURN_IF_ERROR(CheckCounts(bytes, fields));
  BALEEN_ASSIGN_OR_RETURN(Request message, Parse<Request>(bytes, "ChatRequest"));
  return ReadChat(std::move(message));
}

absl::StatusOr<GenerationRequest> ParseGenerate(std::string_view bytes) {
  using Request = v1::GenerateRequest;
  const CountedField fields[] = {
      {"stop.text",
       {Request::kStopFieldNumber, v1::StopParams::kTextFieldNumber},
       contract::kStopTextsMax},
      {"sampling.logit_bias",
       {Request::kSamplingFieldNumber, v1::SamplingParams::kLogitBiasFieldNumber},
       contract::kLogitBiasesMax}};
  BALEEN_RETURN_IF_ERROR(CheckCounts(bytes, fields));
  BALEEN_ASSIGN_OR_RETURN(Request message, Parse<Request>(bytes, "GenerateRequest"));
  return ReadGenerate(std::move(message));
}

absl::StatusOr<TokenizationRequest> ParseTokenize(std::string_view bytes) {
  using Request = v1::TokenizeRequest;
  const CountedField fields[] = {{"messages",
                                  {Request::kChatFieldNumber, v1::Messages::kMessagesFieldNumber},
                                  contract::kMessagesMax},
                                 {"messages.tool_calls",
                                  {Request::kChatFieldNumber, v1::Messages::kMessagesFieldNumber,
                                   v1::Message::kToolCallsFieldNumber},
                                  contract::kMessagesMax},
                                 {"tools", {Request::kToolsFieldNumber}, contract::kToolsMax}};
  BALEEN_RETURN_IF_ERROR(CheckCounts(bytes, fields));
  BALEEN_ASSIGN_OR_RETURN(Request message, Parse<Request>(bytes, "TokenizeRequest"));
  return ReadTokenize(std::move(message));
}

}  // namespace baleen::router
