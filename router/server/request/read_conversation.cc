#include "router/server/request/read_conversation.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "router/server/request/invalid.h"

namespace baleen::router {
namespace {

bool IsToolName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return !name.empty() && name.size() <= contract::kToolNameBytesMax &&
         std::ranges::all_of(name, allowed);
}

absl::Status CheckCallId(std::size_t turn, std::string_view field, const std::string& id) {
  if (!id.empty() && id.size() <= contract::kToolCallIdBytesMax) return absl::OkStatus();
  return Invalid("messages[{}].{} has {} bytes, not 1 to {}", turn, field, id.size(),
                 contract::kToolCallIdBytesMax);
}

// Precondition: `message` is a turn of the assistant, or has no calls.
absl::Status ReadCalls(std::size_t index, v1::Message& message, ChatTurn& turn) {
  if (static_cast<std::size_t>(message.tool_calls_size()) > contract::kToolsMax) {
    return Invalid("messages[{}].tool_calls has {} entries, limit {}", index,
                   message.tool_calls_size(), contract::kToolsMax);
  }
  for (v1::ToolCall& call : *message.mutable_tool_calls()) {
    BALEEN_RETURN_IF_ERROR(CheckCallId(index, "tool_calls.id", call.id()));
    if (!IsToolName(call.name())) {
      return Invalid("messages[{}].tool_calls[{}].name is not the name of a tool", index,
                     turn.tool_calls.size());
    }
    turn.tool_calls.push_back({.id = std::move(*call.mutable_id()),
                               .name = std::move(*call.mutable_name()),
                               .arguments = std::move(*call.mutable_arguments())});
  }
  return absl::OkStatus();
}

absl::StatusOr<ChatTurn> ReadTurn(std::size_t index, v1::Message& message) {
  const std::optional<ChatRole> role = ParseChatRole(message.role());
  if (!role) {
    return Invalid("messages[{}].role is not 'system', 'developer', 'user', 'assistant' or 'tool'",
                   index);
  }
  ChatTurn turn{.role = *role, .content = std::move(*message.mutable_content())};
  if (*role != ChatRole::kAssistant && message.tool_calls_size() > 0) {
    return Invalid("messages[{}].tool_calls: only the assistant makes them", index);
  }
  BALEEN_RETURN_IF_ERROR(ReadCalls(index, message, turn));
  if (*role == ChatRole::kTool) {
    BALEEN_RETURN_IF_ERROR(CheckCallId(index, "tool_call_id", message.tool_call_id()));
    turn.tool_call_id = std::move(*message.mutable_tool_call_id());
  } else if (!message.tool_call_id().empty()) {
    return Invalid("messages[{}].tool_call_id: only a turn of role 'tool' has one", index);
  }
  return turn;
}

std::size_t BytesOf(const ChatTurn& turn) {
  std::size_t bytes = turn.content.size() + turn.tool_call_id.size();
  for (const CalledTool& call : turn.tool_calls) {
    bytes += call.id.size() + call.name.size() + call.arguments.size();
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::vector<ChatTurn>> ReadMessages(
    google::protobuf::RepeatedPtrField<v1::Message>& messages) {
  if (messages.empty()) return Invalid("messages is empty");
  std::vector<ChatTurn> turns;
  turns.reserve(static_cast<std::size_t>(messages.size()));
  std::size_t bytes = 0;
  for (v1::Message& message : messages) {
    BALEEN_ASSIGN_OR_RETURN(ChatTurn turn, ReadTurn(turns.size(), message));
    bytes += BytesOf(turn);
    turns.push_back(std::move(turn));
  }
  if (bytes == 0) return Invalid("messages have no content");
  if (bytes > contract::kPromptTextBytesMax) {
    return Invalid("messages have {} bytes of content, limit {}", bytes,
                   contract::kPromptTextBytesMax);
  }
  return turns;
}

absl::StatusOr<std::vector<ToolSpec>> ReadTools(
    google::protobuf::RepeatedPtrField<v1::Tool>& tools) {
  if (static_cast<std::size_t>(tools.size()) > contract::kToolsMax) {
    return Invalid("tools has {} entries, limit {}", tools.size(), contract::kToolsMax);
  }
  std::vector<ToolSpec> result;
  std::set<std::string_view> names;
  std::size_t bytes = 0;
  for (v1::Tool& tool : tools) {
    if (!IsToolName(tool.name())) {
      return Invalid("tools[{}].name is not 1 to {} of a-z, A-Z, 0-9, '_', '-' and '.'",
                     result.size(), contract::kToolNameBytesMax);
    }
    if (!names.insert(tool.name()).second) {
      return Invalid("tools[{}].name '{}' is there twice", result.size(), tool.name());
    }
    bytes += tool.name().size() + tool.description().size() + tool.parameters().size();
    result.push_back({.name = tool.name(),  // `names` refers to it
                      .description = std::move(*tool.mutable_description()),
                      .parameters = std::move(*tool.mutable_parameters())});
  }
  if (bytes <= contract::kGrammarBytesMax) return result;
  return Invalid("tools have {} bytes, limit {}", bytes, contract::kGrammarBytesMax);
}

absl::StatusOr<ToolUse> ReadToolUse(v1::ChatRequest& message) {
  ToolUse use{.single = message.single_tool_call()};
  BALEEN_ASSIGN_OR_RETURN(use.tools, ReadTools(*message.mutable_tools()));
  const v1::ToolChoice& choice = message.tool_choice();
  switch (choice.mode()) {
    case v1::ToolChoice::MODE_AUTO:
      break;
    case v1::ToolChoice::MODE_NONE:
      use.mode = ToolMode::kNone;
      break;
    case v1::ToolChoice::MODE_REQUIRED:
      use.mode = ToolMode::kRequired;
      break;
    default:
      return Invalid("tool_choice.mode {} is not known", static_cast<int>(choice.mode()));
  }
  if (use.mode == ToolMode::kRequired && use.tools.empty()) {
    return Invalid("tool_choice requires a call, and there are no tools");
  }
  if (choice.name().empty()) return use;
  if (use.mode != ToolMode::kRequired) {
    return Invalid("tool_choice.name is set, and its mode is not MODE_REQUIRED");
  }
  if (std::ranges::find(use.tools, choice.name(), &ToolSpec::name) == use.tools.end()) {
    return Invalid("tool_choice.name '{:.64}' is not one of the tools", choice.name());
  }
  use.name = choice.name();
  return use;
}

absl::StatusOr<std::optional<FormatSpec>> ReadFormat(v1::Format& format) {
  FormatSpec spec;
  switch (format.kind_case()) {
    case v1::Format::kJsonSchema:
      spec = {FormatKind::kJsonSchema, std::move(*format.mutable_json_schema())};
      break;
    case v1::Format::kJsonObject:
      if (!format.json_object()) return std::nullopt;
      return FormatSpec{};
    case v1::Format::kRegex:
      spec = {FormatKind::kRegex, std::move(*format.mutable_regex())};
      break;
    case v1::Format::kLark:
      spec = {FormatKind::kLark, std::move(*format.mutable_lark())};
      break;
    case v1::Format::KIND_NOT_SET:
      return std::nullopt;
  }
  if (spec.source.empty() || spec.source.size() > contract::kGrammarBytesMax) {
    return Invalid("format has {} bytes, not 1 to {}", spec.source.size(),
                   contract::kGrammarBytesMax);
  }
  return spec;
}

}  // namespace baleen::router
