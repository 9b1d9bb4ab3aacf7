// A conversation to the prompt that the model was trained to continue.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/text/tokenizer.h"
#include "text/grammar/tool_grammar.h"

struct baleen_text_template;

namespace baleen::router {

enum class ChatRole : std::uint8_t { kSystem, kUser, kAssistant, kTool };

// nullopt for anything but "system", "developer" (which is system), "user", "assistant", "tool".
std::optional<ChatRole> ParseChatRole(std::string_view name);

// These three borrow their texts.
struct ChatToolCall {
  std::string_view id;
  std::string_view name;
  std::string_view arguments;  // JSON text, an object; empty = an object without members
};

struct ChatMessage {
  ChatRole role = ChatRole::kUser;
  std::string_view content;
  std::span<const ChatToolCall> tool_calls = {};  // of kAssistant
  std::string_view tool_call_id = {};             // of kTool
};

struct ChatTool {
  std::string_view name;
  std::string_view description;
  std::string_view parameters;  // JSON Schema; empty = an object without members
};

struct RenderOptions {
  // The prompt ends with the beginning of the assistant's turn.
  bool add_generation_prompt = true;
  // For templates that show the date, in UTC.
  absl::Time now = absl::UnixEpoch();
  // What the template tells the model that it may call.
  std::span<const ChatTool> tools = {};
  EncodeHelp help = {};
};

struct RenderedPrompt {
  std::string text;  // for people and logs: what is a token and what is text does not show in it
  std::vector<std::int32_t> token_ids;
  bool opens_reasoning = false;  // it ends with <think>: the reply begins inside the reasoning
};

// The model's own Jinja template, rendered as Hugging Face transformers renders it. Immutable once
// loaded; any number of threads may use one.
//
// Templates see tools, and tool calls of messages, in OpenAI's shape. Arguments of calls are
// values, but text to a template that can only join them to text (DeepSeek's before V3.1). The
// content of a turn that is empty but for calls is none.
//
// A message can not steer the model: control tokens spelled out in what clients send, names and
// JSON of tools included, stay text, whatever the template does with it (how:
// text/crate/src/control.rs). The one exception: <think> and </think> in the content of an
// assistant message are tags, so that the template can drop earlier reasoning.
class ChatTemplate {
 public:
  // chat_template.jinja of `model_dir`; else chat_template of its tokenizer_config.json; else the
  // format of DeepSeek-R1 and V3. NOT_FOUND if there is none that fits the vocabulary;
  // FAILED_PRECONDITION if the template is malformed.
  static absl::StatusOr<std::shared_ptr<const ChatTemplate>> Load(
      const std::string& model_dir, std::shared_ptr<const Tokenizer> tokenizer);

  // INVALID_ARGUMENT if there are no messages or too many, if they, the tools or the prompt are too
  // long (TextLimits), not UTF-8, or refused by the template; if arguments or parameters are no
  // JSON objects, or nested deeper than 48 levels. FAILED_PRECONDITION if the template fails.
  absl::StatusOr<RenderedPrompt> Render(std::span<const ChatMessage> messages,
                                        const RenderOptions& options = {}) const;

  // How the model writes its calls, as the template writes earlier ones.
  text::ToolCallFormat tool_call_format() const { return tool_call_format_; }

 private:
  struct HandleDeleter {
    void operator()(baleen_text_template* handle) const;
  };
  using Handle = std::unique_ptr<baleen_text_template, HandleDeleter>;

  ChatTemplate(Handle handle, std::shared_ptr<const Tokenizer> tokenizer);
  bool OpensReasoning(const RenderedPrompt& prompt) const;

  Handle handle_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  text::ToolCallFormat tool_call_format_;
};

}  // namespace baleen::router
