#include "router/server/openai/reply/event_writer.h"

#include <utility>

#include "router/server/openai/json/writer.h"

namespace baleen::router::openai {

using json::AppendInteger;
using json::AppendString;

EventWriter::EventWriter(const AnswerHead& head, const ReplyForm& form, const TokenTable* table)
    : api_(head.api), form_(form), table_(table), head_("data: ") {
  AppendHead(head, true, &head_);
}

void EventWriter::Append(ReplyPart part, std::string* out) {
  if (choices_.size() <= part.choice) choices_.resize(part.choice + 1);
  if (!part.prompt_text.empty()) prompt_text_ = std::move(part.prompt_text);
  Choice& choice = choices_[part.choice];
  const bool first = !std::exchange(choice.begun, true);
  if (first || HasNews(part)) {
    *out += head_;
    if (form_.return_token_ids && !part.prompt_token_ids.empty()) {
      *out += ",\"prompt_token_ids\":";
      AppendTokenIds(part.prompt_token_ids, out);
    }
    *out += ",\"choices\":[{\"index\":";
    AppendInteger(std::uint64_t{part.choice}, out);
    if (api_ == Api::kChat) {
      AppendChatChoice(part, first, out);
    } else {
      AppendCompletionChoice(part, choice, first, out);
    }
    *out += ",\"finish_reason\":";
    AppendFinish(part.finish, out);
    if (form_.return_token_ids) {
      *out += ",\"token_ids\":";
      AppendTokenIds(part.token_ids, out);
    }
    *out += form_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
  }
  if (part.totals && form_.include_usage) AppendTotals(*part.totals, out);
}

bool EventWriter::HasNews(const ReplyPart& part) const {
  return !part.delta.content.empty() || !part.delta.reasoning.empty() ||
         !part.delta.tool_calls.empty() || part.finish.has_value() || !part.logprobs.empty() ||
         !part.prompt_logprobs.empty() || (form_.return_token_ids && !part.token_ids.empty());
}

void EventWriter::AppendChatChoice(const ReplyPart& part, bool first, std::string* out) {
  *out += ",\"delta\":{";
  const auto member = [out](std::string_view name) {
    if (out->back() != '{') *out += ',';
    *out += name;
  };
  if (first) {
    member("\"role\":\"assistant\"");
  }
  if (!part.delta.reasoning.empty()) {
    member("\"reasoning_content\":");
    AppendString(part.delta.reasoning, out);
  }
  if (!part.delta.content.empty() || first) {
    member("\"content\":");
    AppendString(part.delta.content, out);
  }
  if (!part.delta.tool_calls.empty()) {
    member("\"tool_calls\":[");
    AppendToolCallDeltas(part.delta.tool_calls, out);
    *out += ']';
  }
  *out += "},\"logprobs\":";
  if (part.logprobs.empty()) {
    *out += "null";
    return;
  }
  *out += "{\"content\":[";
  AppendChatLogprobs(part.token_ids, part.logprobs, table_, out);
  *out += "],\"refusal\":null}";
}

void EventWriter::AppendCompletionChoice(const ReplyPart& part, Choice& choice, bool first,
                                         std::string* out) {
  *out += ",\"text\":";
  AppendString(first ? prompt_text_ + part.delta.content : part.delta.content, out);
  if (form_.prompt_logprobs_apart) {
    if (!part.prompt_logprobs.empty()) {
      *out += ",\"prompt_logprobs\":[";
      AppendPromptLogprobs(part.prompt_logprobs, table_, out);
      *out += ']';
    }
  } else {
    for (const PromptTokenLogprobs& token : part.prompt_logprobs) {
      choice.logprobs.Add(token.id, token.logprobs ? &*token.logprobs : nullptr, table_);
    }
  }
  for (std::size_t i = 0; i < part.logprobs.size(); ++i) {
    choice.logprobs.Add(part.token_ids[i], &part.logprobs[i], table_);
  }
  *out += ",\"logprobs\":";
  if (choice.logprobs.empty()) {
    *out += "null";
  } else {
    choice.logprobs.Take(out);
  }
}

void EventWriter::AppendTotals(const ReplyTotals& totals, std::string* out) {
  *out += head_;
  *out += ",\"choices\":[],";
  AppendUsage(totals, out);
  *out += ',';
  AppendDetails(totals, out);
  *out += "}\n\n";
}

}  // namespace baleen::router::openai
