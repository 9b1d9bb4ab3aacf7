#include "router/server/request/validate.h"

#include <fmt/format.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <cmath>
#include <limits>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/baleen/v1/inference.pb.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::router {
namespace {

using contract::MakeStatus;
using contract::Reason;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;

template <typename... Args>
absl::Status Invalid(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(Reason::kInvalidRequest, fmt::format(format, std::forward<Args>(args)...));
}

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

absl::Status CheckMessageCount(std::string_view bytes, std::span<const int> path) {
  const std::size_t count = CountEntries(bytes, path);
  if (count <= contract::kMessagesMax) return absl::OkStatus();
  return Invalid("messages has {} entries, limit {}", count, contract::kMessagesMax);
}

// `type` is for the error only.
template <typename Message>
absl::Status Parse(std::string_view bytes, std::string_view type, Message& message) {
  if (message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::OkStatus();
  }
  return Invalid("the message is not a {}: it is malformed, or a text in it is not valid UTF-8",
                 type);
}

absl::Status CheckModelName(const std::string& name) {
  if (name.size() <= contract::kModelNameBytesMax) return absl::OkStatus();
  return Invalid("model has {} bytes, limit {}", name.size(), contract::kModelNameBytesMax);
}

absl::StatusOr<std::vector<ChatTurn>> ReadMessages(
    google::protobuf::RepeatedPtrField<v1::Message>& messages) {
  if (messages.empty()) return Invalid("messages is empty");
  std::vector<ChatTurn> turns;
  turns.reserve(static_cast<std::size_t>(messages.size()));
  std::size_t bytes = 0;
  for (v1::Message& message : messages) {
    const std::optional<ChatRole> role = ParseChatRole(message.role());
    if (!role) {
      return Invalid("messages[{}].role is not 'system', 'user' or 'assistant'", turns.size());
    }
    bytes += message.content().size();
    turns.push_back({*role, std::move(*message.mutable_content())});
  }
  if (bytes == 0) return Invalid("messages have no content");
  if (bytes > contract::kPromptTextBytesMax) {
    return Invalid("messages have {} bytes of content, limit {}", bytes,
                   contract::kPromptTextBytesMax);
  }
  return turns;
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
    return MakeStatus(
        Reason::kPromptTooLong,
        fmt::format("token_ids has {} ids, limit {}", ids.ids_size(), contract::kContextTokensMax));
  }
  return TokenIds(ids.ids().begin(), ids.ids().end());
}

absl::StatusOr<Sampling> ReadSampling(const v1::SamplingParams& params) {
  Sampling sampling;
  if (params.has_temperature()) {
    const float temperature = params.temperature();
    // Written so that NaN fails.
    const bool in_range =
        temperature >= contract::kTemperatureMin && temperature <= contract::kTemperatureMax;
    if (temperature != 0.0f && !in_range) {
      return Invalid("sampling.temperature {} is neither 0 nor {} to {}", temperature,
                     contract::kTemperatureMin, contract::kTemperatureMax);
    }
    sampling.temperature = temperature == 0.0f ? 0.0f : temperature;  // -0 is 0
  }
  if (params.has_top_p()) {
    const float top_p = params.top_p();
    if (!(top_p > 0.0f && top_p <= 1.0f)) {
      return Invalid("sampling.top_p {} is not above 0 and at most 1", top_p);
    }
    sampling.top_p = top_p;
  }
  sampling.top_k = params.top_k();
  sampling.seed = params.has_seed() ? params.seed() : contract::RandomNonZero();
  return sampling;
}

absl::Status ReadStop(const v1::StopParams& stop, GenerationRequest& request) {
  request.ignore_eos = stop.ignore_eos();
  if (!stop.has_max_tokens()) return absl::OkStatus();
  if (stop.max_tokens() < 1 || stop.max_tokens() > contract::kCompletionTokensMax) {
    return Invalid("stop.max_tokens {} is not 1 to {}", stop.max_tokens(),
                   contract::kCompletionTokensMax);
  }
  request.tokens_max = stop.max_tokens();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationRequest> ReadChatRequest(std::string_view bytes) {
  constexpr int kPath[] = {v1::ChatRequest::kMessagesFieldNumber};
  BALEEN_RETURN_IF_ERROR(CheckMessageCount(bytes, kPath));
  v1::ChatRequest message;
  BALEEN_RETURN_IF_ERROR(Parse(bytes, "ChatRequest", message));
  BALEEN_RETURN_IF_ERROR(CheckModelName(message.model()));
  GenerationRequest request{.model = message.model(),
                            .return_prompt_token_ids = message.return_prompt_token_ids()};
  BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadMessages(*message.mutable_messages()));
  BALEEN_ASSIGN_OR_RETURN(request.sampling, ReadSampling(message.sampling()));
  BALEEN_RETURN_IF_ERROR(ReadStop(message.stop(), request));
  return request;
}

absl::StatusOr<GenerationRequest> ReadGenerateRequest(std::string_view bytes) {
  v1::GenerateRequest message;
  BALEEN_RETURN_IF_ERROR(Parse(bytes, "GenerateRequest", message));
  BALEEN_RETURN_IF_ERROR(CheckModelName(message.model()));
  GenerationRequest request{.model = message.model()};
  switch (message.prompt_case()) {
    case v1::GenerateRequest::kText: {
      BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadText(*message.mutable_text()));
      break;
    }
    case v1::GenerateRequest::kTokenIds: {
      BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadTokenIds(message.token_ids()));
      break;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return Invalid("prompt is missing: set text or token_ids");
  }
  BALEEN_ASSIGN_OR_RETURN(request.sampling, ReadSampling(message.sampling()));
  BALEEN_RETURN_IF_ERROR(ReadStop(message.stop(), request));
  if (message.has_logprobs()) {
    if (message.logprobs() > contract::kLogprobsMax) {
      return Invalid("logprobs {} is not 0 to {}", message.logprobs(), contract::kLogprobsMax);
    }
    request.sampling.logprobs = static_cast<std::int32_t>(message.logprobs());
  }
  return request;
}

absl::StatusOr<TokenizationRequest> ReadTokenizeRequest(std::string_view bytes) {
  constexpr int kPath[] = {v1::TokenizeRequest::kChatFieldNumber,
                           v1::Messages::kMessagesFieldNumber};
  BALEEN_RETURN_IF_ERROR(CheckMessageCount(bytes, kPath));
  v1::TokenizeRequest message;
  BALEEN_RETURN_IF_ERROR(Parse(bytes, "TokenizeRequest", message));
  BALEEN_RETURN_IF_ERROR(CheckModelName(message.model()));
  TokenizationRequest request{.model = message.model()};
  switch (message.input_case()) {
    case v1::TokenizeRequest::kText: {
      BALEEN_ASSIGN_OR_RETURN(request.prompt, ReadText(*message.mutable_text()));
      return request;
    }
    case v1::TokenizeRequest::kChat: {
      BALEEN_ASSIGN_OR_RETURN(request.prompt,
                              ReadMessages(*message.mutable_chat()->mutable_messages()));
      return request;
    }
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return Invalid("input is missing: set text or chat");
}

}  // namespace baleen::router
