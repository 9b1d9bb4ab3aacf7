// Bodies of POST /v1/chat/completions, and conversations wherever they stand.
#include <fmt/format.h>

#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/limits.h"
#include "router/server/openai/request/common_fields.h"

namespace baleen::router::openai {
namespace {

using json::FieldRow;
using json::Invalid;
using json::Kind;
using json::Path;
using json::ReadBoolean;
using json::ReadString;
using json::ReadUint32;
using json::Value;
using json::WrongKind;

// --- Messages ---

struct TextPart {
  std::string type;
  std::string text;
};

constexpr FieldRow<TextPart> kPartFields[] = {
    {"type",
     [](const Value& value, const Path& path, TextPart& part) {
       BALEEN_ASSIGN_OR_RETURN(part.type, ReadString(value, path));
       if (part.type != "text") return Invalid(path, "only parts of type text: no other is served");
       return absl::OkStatus();
     }},
    {"text",
     [](const Value& value, const Path& path, TextPart& part) {
       BALEEN_ASSIGN_OR_RETURN(part.text, ReadString(value, path));
       return absl::OkStatus();
     }},
};

// A string, or parts whose texts become lines of one.
absl::Status SetContent(const Value& value, const Path& path, v1::Message& message) {
  if (value.is(Kind::kString)) {
    message.set_content(std::string(value.text()));
    return absl::OkStatus();
  }
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "a string or an array of parts");
  std::string& content = *message.mutable_content();
  std::size_t index = 0;
  for (const Value entry : value) {
    const Path at(path, index);
    TextPart part;
    BALEEN_RETURN_IF_ERROR(ReadObject(entry, at, kPartFields, part));
    if (part.type.empty()) return Invalid(Path(at, "type"), "it is missing");
    if (index > 0) content += '\n';
    content += part.text;
    ++index;
  }
  return absl::OkStatus();
}

constexpr FieldRow<v1::ToolCall> kCalledFunctionFields[] = {
    {"name",
     [](const Value& value, const Path& path, v1::ToolCall& call) {
       BALEEN_ASSIGN_OR_RETURN(*call.mutable_name(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"arguments",
     [](const Value& value, const Path& path, v1::ToolCall& call) {
       BALEEN_ASSIGN_OR_RETURN(*call.mutable_arguments(), ReadString(value, path));
       return absl::OkStatus();
     }},
};

// "type" of tools and of calls.
absl::Status CheckFunctionType(const Value& value, const Path& path) {
  if (value.is(Kind::kString) && value.text() == "function") return absl::OkStatus();
  return Invalid(path, "only \"function\"");
}

constexpr FieldRow<v1::ToolCall> kCallFields[] = {
    {"id",
     [](const Value& value, const Path& path, v1::ToolCall& call) {
       BALEEN_ASSIGN_OR_RETURN(*call.mutable_id(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"index", nullptr},  // of clients that add up deltas and send the sum back
    {"type", [](const Value& value, const Path& path,
                v1::ToolCall&) { return CheckFunctionType(value, path); }},
    {"function",
     [](const Value& value, const Path& path, v1::ToolCall& call) {
       return ReadObject(value, path, kCalledFunctionFields, call);
     }},
};

absl::Status SetToolCalls(const Value& value, const Path& path, v1::Message& message) {
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "an array");
  std::size_t index = 0;
  for (const Value entry : value) {
    const Path at(path, index);
    if (index >= contract::kToolsMax) {
      return Invalid(path, fmt::format("it has more than {} calls", contract::kToolsMax));
    }
    BALEEN_RETURN_IF_ERROR(ReadObject(entry, at, kCallFields, *message.add_tool_calls()));
    ++index;
  }
  return absl::OkStatus();
}

constexpr FieldRow<v1::Message> kMessageFields[] = {
    {"role",
     [](const Value& value, const Path& path, v1::Message& message) {
       BALEEN_ASSIGN_OR_RETURN(*message.mutable_role(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"content", SetContent},
    {"tool_calls", SetToolCalls},
    {"tool_call_id",
     [](const Value& value, const Path& path, v1::Message& message) {
       BALEEN_ASSIGN_OR_RETURN(*message.mutable_tool_call_id(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"function_call",
     [](const Value&, const Path& path, v1::Message&) {
       return RefuseWith(path, "it is deprecated: use tool_calls");
     }},
    // What clients send back of our answers, or to tell speakers apart; templates show none of it.
    {"name", nullptr},
    {"refusal", nullptr},
    {"annotations", nullptr},
    {"audio", nullptr},
    {"reasoning_content", nullptr},
};

// --- Tools ---

constexpr FieldRow<v1::Tool> kFunctionFields[] = {
    {"name",
     [](const Value& value, const Path& path, v1::Tool& tool) {
       BALEEN_ASSIGN_OR_RETURN(*tool.mutable_name(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"description",
     [](const Value& value, const Path& path, v1::Tool& tool) {
       BALEEN_ASSIGN_OR_RETURN(*tool.mutable_description(), ReadString(value, path));
       return absl::OkStatus();
     }},
    {"parameters",
     [](const Value& value, const Path& path, v1::Tool& tool) {
       if (!value.is(Kind::kObject)) return WrongKind(path, value, "a JSON Schema of an object");
       tool.set_parameters(value.ToText());
       return absl::OkStatus();
     }},
    {"strict", nullptr},  // we always are
};

constexpr FieldRow<v1::Tool> kToolFields[] = {
    {"type", [](const Value& value, const Path& path,
                v1::Tool&) { return CheckFunctionType(value, path); }},
    {"function", [](const Value& value, const Path& path,
                    v1::Tool& tool) { return ReadObject(value, path, kFunctionFields, tool); }},
};

// --- The body ---

struct ChatTarget : CommonTarget {
  v1::ChatRequest& message;
  bool logprobs = false;
  std::optional<std::uint32_t> top_logprobs;
};

constexpr FieldRow<v1::ToolChoice> kChosenFunctionFields[] = {
    {"name",
     [](const Value& value, const Path& path, v1::ToolChoice& choice) {
       BALEEN_ASSIGN_OR_RETURN(*choice.mutable_name(), ReadString(value, path));
       return absl::OkStatus();
     }},
};

constexpr FieldRow<v1::ToolChoice> kToolChoiceFields[] = {
    {"type", [](const Value& value, const Path& path,
                v1::ToolChoice&) { return CheckFunctionType(value, path); }},
    {"function",
     [](const Value& value, const Path& path, v1::ToolChoice& choice) {
       return ReadObject(value, path, kChosenFunctionFields, choice);
     }},
};

absl::Status SetToolChoice(const Value& value, const Path& path, ChatTarget& target) {
  v1::ToolChoice& choice = *target.message.mutable_tool_choice();
  if (value.is(Kind::kObject)) {
    BALEEN_RETURN_IF_ERROR(ReadObject(value, path, kToolChoiceFields, choice));
    if (choice.name().empty()) return Invalid(path, "its function.name is missing");
    choice.set_mode(v1::ToolChoice::MODE_REQUIRED);
    return absl::OkStatus();
  }
  if (!value.is(Kind::kString)) return WrongKind(path, value, "a string or an object");
  if (value.text() == "none") {
    choice.set_mode(v1::ToolChoice::MODE_NONE);
  } else if (value.text() == "required") {
    choice.set_mode(v1::ToolChoice::MODE_REQUIRED);
  } else if (value.text() != "auto") {
    return Invalid(path, "it is none of auto, none, required and a function");
  }
  return absl::OkStatus();
}

absl::Status RefuseFunctions(const Value&, const Path& path, ChatTarget&) {
  return RefuseWith(path, "it is deprecated: use tools and tool_choice");
}

constexpr FieldRow<ChatTarget> kChatFields[] = {
    {"messages",
     [](const Value& value, const Path& path, ChatTarget& target) {
       return ReadMessages(value, path, *target.message.mutable_messages());
     }},
    {"max_completion_tokens",
     [](const Value& value, const Path& path, ChatTarget& target) {
       return FindRow(CommonFields(), "max_tokens")->read(value, path, target);
     }},
    {"logprobs",
     [](const Value& value, const Path& path, ChatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.logprobs, ReadBoolean(value, path));
       return absl::OkStatus();
     }},
    {"top_logprobs",
     [](const Value& value, const Path& path, ChatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(target.top_logprobs, ReadUint32(value, path));
       return absl::OkStatus();
     }},
    {"tools",
     [](const Value& value, const Path& path, ChatTarget& target) {
       return ReadTools(value, path, *target.message.mutable_tools());
     }},
    {"tool_choice", SetToolChoice},
    {"parallel_tool_calls",
     [](const Value& value, const Path& path, ChatTarget& target) {
       BALEEN_ASSIGN_OR_RETURN(const bool parallel, ReadBoolean(value, path));
       target.message.set_single_tool_call(!parallel);
       return absl::OkStatus();
     }},
    {"modalities",
     [](const Value& value, const Path& path, ChatTarget&) {
       const bool text = value.is(Kind::kArray) && value.size() == 1 &&
                         (*value.begin()).is(Kind::kString) && (*value.begin()).text() == "text";
       return text ? absl::OkStatus() : Invalid(path, "only [\"text\"]");
     }},
    {"functions", RefuseFunctions},
    {"function_call", RefuseFunctions},
};

}  // namespace

absl::Status ReadMessages(const Value& value, const Path& path,
                          google::protobuf::RepeatedPtrField<v1::Message>& messages) {
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "an array of messages");
  const std::size_t count = value.size();
  if (count > contract::kMessagesMax) {
    return Invalid(path, fmt::format("it has {} entries, limit {}", count, contract::kMessagesMax));
  }
  messages.Reserve(static_cast<int>(count));
  std::size_t index = 0;
  for (const Value entry : value) {
    const Path at(path, index);
    v1::Message& message = *messages.Add();
    BALEEN_RETURN_IF_ERROR(ReadObject(entry, at, kMessageFields, message));
    if (message.role().empty()) return Invalid(Path(at, "role"), "it is missing");
    ++index;
  }
  return absl::OkStatus();
}

absl::Status ReadTools(const Value& value, const Path& path,
                       google::protobuf::RepeatedPtrField<v1::Tool>& tools) {
  if (!value.is(Kind::kArray)) return WrongKind(path, value, "an array of tools");
  const std::size_t count = value.size();
  if (count > contract::kToolsMax) {
    return Invalid(path, fmt::format("it has {} entries, limit {}", count, contract::kToolsMax));
  }
  std::size_t index = 0;
  for (const Value entry : value) {
    const Path at(path, index);
    v1::Tool& tool = *tools.Add();
    BALEEN_RETURN_IF_ERROR(ReadObject(entry, at, kToolFields, tool));
    if (tool.name().empty()) return Invalid(at, "its function.name is missing");
    ++index;
  }
  return absl::OkStatus();
}

absl::StatusOr<ChatBody> ReadChatBody(std::string_view body) {
  BALEEN_ASSIGN_OR_RETURN(const json::Document document, json::Document::Parse(body));
  ChatBody read;
  ChatTarget target{{.sampling = *read.message.mutable_sampling(),
                     .stop = *read.message.mutable_stop(),
                     .form = read.form},
                    read.message};
  const Path top;
  BALEEN_RETURN_IF_ERROR(ReadObject(document.root(), top,
                                    std::span<const FieldRow<ChatTarget>>(kChatFields),
                                    CommonFields(), target));
  if (target.top_logprobs && !target.logprobs) {
    return Invalid(Path(top, "top_logprobs"), "only with logprobs: true");
  }
  if (target.logprobs) read.message.set_logprobs(target.top_logprobs.value_or(0));
  read.message.set_return_prompt_token_ids(read.form.return_token_ids);
  BALEEN_RETURN_IF_ERROR(FinishCommon(target, read.message));
  return read;
}

}  // namespace baleen::router::openai
