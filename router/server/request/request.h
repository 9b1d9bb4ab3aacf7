// Requests as the router works on them: validated, whatever API they came by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "proto/contract/limits.h"
#include "router/dispatch/messages.h"
#include "router/text/chat_template.h"

namespace baleen::router {

struct CalledTool {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text
};

struct ChatTurn {
  ChatRole role = ChatRole::kUser;
  std::string content;
  std::vector<CalledTool> tool_calls;  // of the assistant
  std::string tool_call_id;            // of a tool
};

struct ToolSpec {
  std::string name;
  std::string description;
  std::string parameters;  // JSON Schema; empty: no members
};

enum class ToolMode : std::uint8_t { kAuto, kNone, kRequired };

struct ToolUse {
  std::vector<ToolSpec> tools;  // empty: none
  ToolMode mode = ToolMode::kAuto;
  std::string name;     // the one that must be called; empty: any
  bool single = false;  // at most one call
};

struct Conversation {
  std::vector<ChatTurn> turns;
  ToolUse tools;
};

// A conversation for the chat template, text that is the prompt, or the prompt's token ids.
using PromptSource = std::variant<Conversation, std::string, TokenIds>;

enum class FormatKind : std::uint8_t { kJsonSchema, kJsonObject, kRegex, kLark };

struct FormatSpec {
  FormatKind kind = FormatKind::kJsonObject;
  std::string source;  // empty for kJsonObject
};

struct StopRules {
  std::optional<std::uint32_t> tokens_max;
  std::uint32_t tokens_min = 0;
  bool ignore_eos = false;
  std::vector<std::string> texts;
  std::vector<std::int32_t> token_ids;
};

struct GenerationRequest {
  std::string model;  // may be empty
  PromptSource prompt;
  Sampling sampling;  // with a seed: the client's, or one that was drawn
  StopRules stop;
  std::uint32_t choices = 1;
  std::uint32_t priority = contract::kPriorityDefault;
  std::optional<FormatSpec> format;
  ToolMode tool_mode = ToolMode::kNone;  // kNone also without tools
  bool single_tool_call = false;
  std::optional<std::uint32_t> prompt_logprobs;
  bool return_prompt_token_ids = false;
  bool echo = false;        // the prompt's text
  bool chat_reply = false;  // the reasoning apart from the answer
};

struct TokenizationRequest {
  std::string model;
  PromptSource prompt;  // not token ids
};

}  // namespace baleen::router
