#include "router/text/chat_template.h"

#include <array>
#include <cstddef>
#include <utility>

#include "observability/base/status_macros.h"
#include "router/text/reasoning.h"
#include "router/text/text_abi.h"

namespace baleen::router {
namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n";

// In the order of ChatRole.
constexpr std::array<std::string_view, 4> kRoleNames = {"system", "user", "assistant", "tool"};
constexpr std::string_view kDeveloper = "developer";  // what OpenAI calls the system since 2024

// A file that need not be there: empty then.
absl::StatusOr<std::string> ReadOptional(const std::string& model_dir, std::string_view name) {
  absl::StatusOr<std::string> content = ReadModelFile(model_dir, name, kTokenizerConfigBytesMax);
  if (absl::IsNotFound(content.status())) return std::string();
  return content;
}

// Messages and tools as the ABI takes them. Borrows their texts.
struct AbiConversation {
  AbiConversation(std::span<const ChatMessage> from, std::span<const ChatTool> from_tools) {
    std::size_t calls_size = 0;
    for (const ChatMessage& message : from) calls_size += message.tool_calls.size();
    calls.reserve(calls_size);  // it is pointed into
    messages.reserve(from.size());
    for (const ChatMessage& message : from) {
      const baleen_text_tool_call* first = calls.data() + calls.size();
      for (const ChatToolCall& call : message.tool_calls) {
        calls.push_back({.id = ToSpan(call.id),
                         .name = ToSpan(call.name),
                         .arguments = ToSpan(call.arguments)});
      }
      messages.push_back({.role = ToSpan(kRoleNames[static_cast<std::size_t>(message.role)]),
                          .content = ToSpan(message.content),
                          .tool_calls = first,
                          .tool_calls_size = message.tool_calls.size(),
                          .tool_call_id = ToSpan(message.tool_call_id)});
    }
    tools.reserve(from_tools.size());
    for (const ChatTool& tool : from_tools) {
      tools.push_back({.name = ToSpan(tool.name),
                       .description = ToSpan(tool.description),
                       .parameters = ToSpan(tool.parameters)});
    }
  }

  std::vector<baleen_text_tool_call> calls;
  std::vector<baleen_text_message> messages;
  std::vector<baleen_text_tool> tools;
};

}  // namespace

std::optional<ChatRole> ParseChatRole(std::string_view name) {
  if (name == kDeveloper) return ChatRole::kSystem;
  for (std::size_t i = 0; i < kRoleNames.size(); ++i) {
    if (name == kRoleNames[i]) return static_cast<ChatRole>(i);
  }
  return std::nullopt;
}

void ChatTemplate::HandleDeleter::operator()(baleen_text_template* handle) const {
  baleen_text_template_free(handle);
}

ChatTemplate::ChatTemplate(Handle handle, std::shared_ptr<const Tokenizer> tokenizer)
    : handle_(std::move(handle)), tokenizer_(std::move(tokenizer)) {
  baleen_text_template_properties properties;
  baleen_text_template_properties_of(handle_.get(), &properties);
  tool_call_format_ = properties.fences_arguments != 0 ? text::ToolCallFormat::kFunctionJsonBlock
                                                       : text::ToolCallFormat::kNameArguments;
}

absl::StatusOr<std::shared_ptr<const ChatTemplate>> ChatTemplate::Load(
    const std::string& model_dir, std::shared_ptr<const Tokenizer> tokenizer) {
  BALEEN_ASSIGN_OR_RETURN(const std::string config,
                          ReadOptional(model_dir, "tokenizer_config.json"));
  BALEEN_ASSIGN_OR_RETURN(const std::string file, ReadOptional(model_dir, "chat_template.jinja"));
  baleen_text_template* raw = nullptr;
  baleen_text_error error;
  const std::int32_t code =
      baleen_text_template_load(tokenizer->handle(), ToSpan(config), ToSpan(file), &raw, &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error, model_dir));
  return std::shared_ptr<const ChatTemplate>(new ChatTemplate(Handle(raw), std::move(tokenizer)));
}

absl::StatusOr<RenderedPrompt> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                                    const RenderOptions& options) const {
  const AbiConversation conversation(messages, options.tools);
  const baleen_text_render_options abi_options = {
      .add_generation_prompt = static_cast<std::uint8_t>(options.add_generation_prompt ? 1 : 0),
      .now_unix_seconds = absl::ToUnixSeconds(options.now),
      .tools = conversation.tools.data(),
      .tools_size = conversation.tools.size()};
  AbiPrompt result;
  baleen_text_error error;
  const std::int32_t code =
      baleen_text_render(handle_.get(), conversation.messages.data(), conversation.messages.size(),
                         &abi_options, result.out(), &error);
  BALEEN_RETURN_IF_ERROR(ToStatus(code, error));
  RenderedPrompt prompt = {.text = result.text()};
  BALEEN_ASSIGN_OR_RETURN(prompt.token_ids, tokenizer_->IdsOf(result, prompt.text, options.help));
  prompt.opens_reasoning = OpensReasoning(prompt);
  return prompt;
}

// What the prompt ends with comes from the template. White space may follow the tag.
bool ChatTemplate::OpensReasoning(const RenderedPrompt& prompt) const {
  if (tokenizer_->reasoning_open_id() < 0) {
    const std::size_t last = prompt.text.find_last_not_of(kWhiteSpace);
    return last != std::string::npos &&
           std::string_view(prompt.text).substr(0, last + 1).ends_with(kReasoningOpenTag);
  }
  for (std::size_t i = prompt.token_ids.size(); i > 0; --i) {
    const std::int32_t id = prompt.token_ids[i - 1];
    if (id == tokenizer_->reasoning_open_id()) return true;
    const std::string_view bytes = tokenizer_->table().At(id).bytes;
    if (bytes.find_first_not_of(kWhiteSpace) != std::string_view::npos) return false;
  }
  return false;
}

}  // namespace baleen::router
