#include "router/server/request/prompt.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "proto/contract/block_hash.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::router {
namespace {

using contract::MakeStatus;
using contract::Reason;

absl::Status FromText(const absl::Status& status) {
  const bool client = status.code() == absl::StatusCode::kInvalidArgument;
  return MakeStatus(client ? Reason::kInvalidRequest : Reason::kInternal,
                    std::string(status.message()));
}

absl::Status NeedsTokenizer(const ModelText& model) {
  return MakeStatus(
      Reason::kInvalidRequest,
      fmt::format("model '{}' has no tokenizer.json, so it takes token_ids only", model.name));
}

absl::StatusOr<Prompt> RenderChat(const ModelText& model, const Conversation& conversation,
                                  absl::Time now) {
  if (model.tokenizer == nullptr) return NeedsTokenizer(model);
  if (model.chat_template == nullptr) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("model '{}' has no chat template, so it takes no conversations: "
                                  "use Generate",
                                  model.name));
  }
  std::vector<std::vector<ChatToolCall>> calls;  // what messages refer to
  calls.reserve(conversation.turns.size());
  std::vector<ChatMessage> messages;
  messages.reserve(conversation.turns.size());
  for (const ChatTurn& turn : conversation.turns) {
    calls.emplace_back();
    for (const CalledTool& call : turn.tool_calls) {
      calls.back().push_back({call.id, call.name, call.arguments});
    }
    messages.push_back({turn.role, turn.content, calls.back(), turn.tool_call_id});
  }
  std::vector<ChatTool> tools;
  if (conversation.tools.mode != ToolMode::kNone) {
    for (const ToolSpec& tool : conversation.tools.tools) {
      tools.push_back({tool.name, tool.description, tool.parameters});
    }
  }
  absl::StatusOr<RenderedPrompt> rendered = model.chat_template->Render(
      messages, {.now = now, .tools = tools, .help = {.cache = model.prompt_cache.get()}});
  if (!rendered.ok()) return FromText(rendered.status());
  return Prompt{.ids = std::move(rendered->token_ids),
                .opens_reasoning = rendered->opens_reasoning};
}

absl::StatusOr<Prompt> MakeIds(const ModelText& model, PromptSource& source, absl::Time now) {
  if (const auto* conversation = std::get_if<Conversation>(&source)) {
    return RenderChat(model, *conversation, now);
  }
  if (const auto* text = std::get_if<std::string>(&source)) {
    if (model.tokenizer == nullptr) return NeedsTokenizer(model);
    absl::StatusOr<TokenIds> ids =
        model.tokenizer->EncodePrompt(*text, {.cache = model.prompt_cache.get()});
    if (!ids.ok()) return FromText(ids.status());
    return Prompt{.ids = *std::move(ids)};
  }
  return Prompt{.ids = std::get<TokenIds>(std::move(source))};
}

absl::Status AddGrammar(const ModelText& model, const PromptWish& wish, Prompt& prompt) {
  const auto* conversation = std::get_if<Conversation>(&wish.source);
  const bool tools = conversation != nullptr && !conversation->tools.tools.empty() &&
                     conversation->tools.mode != ToolMode::kNone;
  if (!wish.format && !tools) return absl::OkStatus();
  if (model.tokenizer == nullptr) return NeedsTokenizer(model);
  BALEEN_ASSIGN_OR_RETURN(std::optional<GrammarSpec> grammar,
                          GrammarOf({.format = wish.format,
                                     .tools = tools ? &conversation->tools : nullptr,
                                     .opens_reasoning = prompt.opens_reasoning},
                                    *model.tokenizer, model.chat_template.get()));
  BALEEN_RETURN_IF_ERROR(model.grammars->Check(*grammar));
  prompt.grammar = std::make_shared<const GrammarSpec>(*std::move(grammar));
  return absl::OkStatus();
}

absl::Status CheckIds(std::string_view field, std::span<const std::int32_t> ids,
                      const ModelIdentity& model) {
  const auto unknown = std::ranges::find_if(ids, [&model](std::int32_t id) {
    return id < 0 || static_cast<std::uint32_t>(id) >= model.vocabulary_size;
  });
  if (unknown == ids.end()) return absl::OkStatus();
  return MakeStatus(Reason::kInvalidRequest,
                    fmt::format("{}[{}] is {}, not 0 to {}", field, unknown - ids.begin(), *unknown,
                                model.vocabulary_size - 1));
}

}  // namespace

absl::StatusOr<Prompt> MakePrompt(const ModelText& model, PromptWish wish, absl::Time now) {
  BALEEN_ASSIGN_OR_RETURN(Prompt prompt, MakeIds(model, wish.source, now));
  BALEEN_RETURN_IF_ERROR(AddGrammar(model, wish, prompt));
  if (wish.echo) {
    if (model.tokenizer == nullptr) return NeedsTokenizer(model);
    const auto* text = std::get_if<std::string>(&wish.source);
    prompt.text = text != nullptr ? *text : model.tokenizer->Decode(prompt.ids);
  }
  if (!wish.tenant_salt.empty()) {
    prompt.block_hashes = std::make_shared<const BlockHashes>(contract::HashBlocks(
        {.tenant_salt = wish.tenant_salt, .model_digest = wish.model_digest}, prompt.ids));
  }
  return prompt;
}

absl::Status CheckFit(const GenerationRequest& request, const TokenIds& ids,
                      const ModelIdentity& model) {
  if (ids.empty()) return MakeStatus(Reason::kInvalidRequest, "the prompt has no tokens");
  if (ids.size() >= model.context_tokens) {
    return MakeStatus(Reason::kPromptTooLong,
                      fmt::format("the prompt has {} tokens, the context of model '{}' is {}",
                                  ids.size(), model.name, model.context_tokens));
  }
  const std::optional<std::uint32_t>& tokens_max = request.stop.tokens_max;
  if (tokens_max && ids.size() + *tokens_max > model.context_tokens) {
    return MakeStatus(Reason::kPromptTooLong,
                      fmt::format("prompt of {} tokens and stop.max_tokens {} exceed the context "
                                  "of model '{}', {}",
                                  ids.size(), *tokens_max, model.name, model.context_tokens));
  }
  BALEEN_RETURN_IF_ERROR(CheckIds("token_ids", ids, model));
  BALEEN_RETURN_IF_ERROR(CheckIds("stop.token_ids", request.stop.token_ids, model));
  for (const LogitBias& bias : request.sampling.biases) {
    BALEEN_RETURN_IF_ERROR(CheckIds("sampling.logit_bias", {&bias.token, 1}, model));
  }
  if (request.sampling.top_k > model.vocabulary_size) {
    return MakeStatus(Reason::kInvalidRequest,
                      fmt::format("sampling.top_k {} is above the vocabulary size {}",
                                  request.sampling.top_k, model.vocabulary_size));
  }
  return absl::OkStatus();
}

std::uint32_t TokensMax(const std::optional<std::uint32_t>& asked, std::size_t prompt_tokens,
                        std::uint32_t context_tokens) {
  if (asked) return *asked;
  const std::size_t left = context_tokens - prompt_tokens;
  return static_cast<std::uint32_t>(
      std::min<std::size_t>(left, contract::kCompletionTokensDefault));
}

absl::StatusOr<ModelIdentity> IdentityOf(const ClusterView& view, const std::string& model) {
  for (const WorkerView& worker : view.workers) {
    if (worker.info->model.name == model) return worker.info->model;
  }
  return MakeStatus(Reason::kNoWorker, fmt::format("no worker is attached for model '{}'", model));
}

}  // namespace baleen::router
