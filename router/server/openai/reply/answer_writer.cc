#include "router/server/openai/reply/answer_writer.h"

#include <utility>

#include "router/server/openai/json/writer.h"

namespace baleen::router::openai {

using json::AppendInteger;
using json::AppendString;

void AnswerWriter::Add(Api api, ReplyPart part) {
  constexpr std::size_t kIdBytes = 7;  // "129279,"
  if (choices_.size() <= part.choice) choices_.resize(part.choice + 1);
  Choice& choice = choices_[part.choice];
  bytes_ += part.delta.reasoning.size() + part.delta.content.size();
  choice.reasoning += part.delta.reasoning;
  choice.content += part.delta.content;
  for (ToolCallDelta& delta : part.delta.tool_calls) {
    bytes_ += delta.id.size() + delta.name.size() + delta.arguments.size();
    if (choice.tool_calls.empty() || choice.tool_calls.back().index != delta.index) {
      choice.tool_calls.push_back(std::move(delta));
    } else {
      choice.tool_calls.back().arguments += delta.arguments;
    }
  }
  if (form_.return_token_ids) {
    bytes_ += part.token_ids.size() * kIdBytes;
    choice.token_ids.insert(choice.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
  }
  AddLogprobs(api, part, choice);
  if (part.finish) choice.finish = part.finish;
  if (!part.prompt_token_ids.empty()) prompt_token_ids_ = std::move(part.prompt_token_ids);
  if (!part.prompt_text.empty()) prompt_text_ = std::move(part.prompt_text);
  if (part.totals) totals_ = *std::move(part.totals);
}

void AnswerWriter::AddLogprobs(Api api, const ReplyPart& part, Choice& choice) {
  constexpr std::size_t kPromptLogprobBytes = 48;  // {"129279":{"logprob":-12.345678,...
  for (const PromptTokenLogprobs& token : part.prompt_logprobs) {
    const std::size_t count = token.logprobs ? token.logprobs->top.size() + 1 : 1;
    bytes_ += count * kPromptLogprobBytes;
    prompt_logprobs_.push_back(token);
  }
  const std::size_t before = choice.chat_logprobs.size() + choice.logprobs.bytes();
  if (api == Api::kChat) {
    if (!part.logprobs.empty() && !choice.chat_logprobs.empty()) choice.chat_logprobs += ',';
    // Into a string of its own: the separators look at what is in front of them.
    std::string members;
    AppendChatLogprobs(part.token_ids, part.logprobs, table_, &members);
    choice.chat_logprobs += members;
  } else {
    // After those of the prompt, if they are asked for in one list.
    if (choice.logprobs.empty() && !form_.prompt_logprobs_apart && !part.logprobs.empty()) {
      for (const PromptTokenLogprobs& token : prompt_logprobs_) {
        choice.logprobs.Add(token.id, token.logprobs ? &*token.logprobs : nullptr, table_);
      }
    }
    for (std::size_t i = 0; i < part.logprobs.size(); ++i) {
      choice.logprobs.Add(part.token_ids[i], &part.logprobs[i], table_);
    }
  }
  bytes_ += choice.chat_logprobs.size() + choice.logprobs.bytes() - before;
}

std::string AnswerWriter::Finish(const AnswerHead& head) const {
  std::string out;
  out.reserve(bytes_ + 1024);
  AppendHead(head, false, &out);
  if (form_.return_token_ids) {
    out += ",\"prompt_token_ids\":";
    AppendTokenIds(prompt_token_ids_, &out);
  }
  out += ",\"choices\":[";
  for (std::size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    out += i == 0 ? "{\"index\":" : ",{\"index\":";
    AppendInteger(std::uint64_t{i}, &out);
    if (head.api == Api::kChat) {
      AppendMessage(choice, &out);
    } else {
      AppendCompletion(choice, &out);
    }
    out += ",\"finish_reason\":";
    AppendFinish(choice.finish, &out);
    if (form_.return_token_ids) {
      out += ",\"token_ids\":";
      AppendTokenIds(choice.token_ids, &out);
    }
    out += '}';
  }
  out += "],";
  AppendUsage(totals_, &out);
  out += ',';
  AppendDetails(totals_, &out);
  out += '}';
  return out;
}

void AnswerWriter::AppendMessage(const Choice& choice, std::string* out) const {
  *out += ",\"message\":{\"role\":\"assistant\",\"content\":";
  if (choice.content.empty() && !choice.tool_calls.empty()) {
    *out += "null";
  } else {
    AppendString(choice.content, out);
  }
  *out += ",\"reasoning_content\":";
  if (choice.reasoning.empty()) {
    *out += "null";
  } else {
    AppendString(choice.reasoning, out);
  }
  *out += ",\"refusal\":null";
  if (!choice.tool_calls.empty()) {
    *out += ",\"tool_calls\":[";
    for (const ToolCallDelta& call : choice.tool_calls) {
      *out += &call == choice.tool_calls.data() ? "{\"id\":" : ",{\"id\":";
      AppendString(call.id, out);
      *out += ",\"type\":\"function\",\"function\":{\"name\":";
      AppendString(call.name, out);
      *out += ",\"arguments\":";
      AppendString(call.arguments, out);
      *out += "}}";
    }
    *out += ']';
  }
  *out += "},\"logprobs\":";
  if (choice.chat_logprobs.empty()) {
    *out += "null";
    return;
  }
  *out += "{\"content\":[";
  *out += choice.chat_logprobs;
  *out += "],\"refusal\":null}";
}

// By value: what it writes it takes.
void AnswerWriter::AppendCompletion(Choice choice, std::string* out) const {
  *out += ",\"text\":";
  AppendString(prompt_text_ + choice.content, out);
  if (form_.prompt_logprobs_apart) {
    *out += ",\"prompt_logprobs\":[";
    std::string members;
    AppendPromptLogprobs(prompt_logprobs_, table_, &members);
    *out += members;
    *out += ']';
  }
  *out += ",\"logprobs\":";
  if (choice.logprobs.empty()) {
    *out += "null";
  } else {
    choice.logprobs.Take(out);
  }
}

}  // namespace baleen::router::openai
