#include "router/server/request/grammars.h"

#include <string>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "router/server/request/invalid.h"
#include "text/grammar/tool_grammar.h"

namespace baleen::router {
namespace {

text::GrammarSource SourceOf(const FormatSpec& format) {
  switch (format.kind) {
    case FormatKind::kJsonSchema:
      return {.kind = text::GrammarKind::kJsonSchema, .text = format.source};
    case FormatKind::kRegex:
      return {.kind = text::GrammarKind::kRegex, .text = format.source};
    case FormatKind::kLark:
      return {.kind = text::GrammarKind::kLark, .text = format.source};
    case FormatKind::kJsonObject:
      break;
  }
  return text::JsonObjectGrammar();
}

absl::StatusOr<GrammarSpec> ToolGrammar(const ToolUse& use, const Tokenizer& tokenizer,
                                        const ChatTemplate& chat_template) {
  const ToolTokens& tokens = tokenizer.tool_tokens();
  std::vector<text::ToolDeclaration> tools;
  for (const ToolSpec& tool : use.tools) {
    if (use.name.empty() || use.name == tool.name) tools.push_back({tool.name, tool.parameters});
  }
  const bool optional = use.mode == ToolMode::kAuto;
  absl::StatusOr<text::GrammarSource> source =
      text::ToolCallGrammar({.format = chat_template.tool_call_format(),
                             .tokens = {.calls_begin = tokens.calls_begin,
                                        .calls_end = tokens.calls_end,
                                        .call_begin = tokens.call_begin,
                                        .call_end = tokens.call_end,
                                        .separator = tokens.separator},
                             .tools = tools,
                             .after_calls_begin = optional,
                             .single = use.single || !use.name.empty()});
  if (!source.ok()) return Invalid("tools: {}", std::string(source.status().message()));
  GrammarSpec spec{.source = *std::move(source)};
  if (optional) spec.after_token = tokens.calls_begin;
  return spec;
}

}  // namespace

absl::Status ModelGrammars::Check(const GrammarSpec& grammar) const {
  std::call_once(once_, [this] {
    auto vocabulary = text::Vocabulary::Create(*tokenizer_->handle(), {});
    vocabulary_status_ = vocabulary.status();
    if (vocabulary.ok()) {
      cache_ = std::make_unique<text::GrammarCache>(*std::move(vocabulary), text::GrammarLimits{});
    }
  });
  BALEEN_RETURN_IF_ERROR(vocabulary_status_);
  const absl::Status status = cache_->Get(grammar.source).status();
  if (status.ok()) return status;
  if (status.code() == absl::StatusCode::kInvalidArgument) {
    return Invalid("the grammar of the reply: {}", std::string(status.message()));
  }
  return contract::MakeStatus(contract::Reason::kQueueFull, std::string(status.message()));
}

absl::StatusOr<std::optional<GrammarSpec>> GrammarOf(const GrammarWish& wish,
                                                     const Tokenizer& tokenizer,
                                                     const ChatTemplate* chat_template) {
  std::optional<GrammarSpec> spec;
  if (wish.format) {
    spec = GrammarSpec{.source = SourceOf(*wish.format)};
  } else if (wish.tools != nullptr) {
    if (!tokenizer.tool_tokens().complete()) {
      return Invalid("tools: the model's vocabulary has no tokens for tool calls");
    }
    BALEEN_ASSIGN_OR_RETURN(spec, ToolGrammar(*wish.tools, tokenizer, *chat_template));
  }
  if (!spec || spec->after_token || !wish.opens_reasoning) return spec;
  if (tokenizer.reasoning_close_id() < 0) {
    return Invalid(
        "the model reasons, and its </think> is not one token: no grammar can follow it");
  }
  spec->after_token = tokenizer.reasoning_close_id();
  return spec;
}

}  // namespace baleen::router
