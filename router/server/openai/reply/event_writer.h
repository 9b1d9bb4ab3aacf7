// The events of a streamed answer (SSE): parts in, `data: {...}` lines out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "router/server/openai/reply/reply_json.h"
#include "router/server/openai/request/reply_form.h"

namespace baleen::router::openai {

inline constexpr std::string_view kDoneEvent = "data: [DONE]\n\n";

class EventWriter {
 public:
  // `table`: of the model's tokens, borrowed; null without a tokenizer.
  EventWriter(const AnswerHead& head, const ReplyForm& form, const TokenTable* table);

  // The events of `part`, none if it has nothing that a client sees. The first one of each choice
  // is written in any case: it says that the answer begins.
  void Append(ReplyPart part, std::string* out);

 private:
  struct Choice {
    bool begun = false;
    CompletionLogprobs logprobs;  // counts characters
  };

  bool HasNews(const ReplyPart& part) const;
  void AppendChatChoice(const ReplyPart& part, bool first, std::string* out);
  void AppendCompletionChoice(const ReplyPart& part, Choice& choice, bool first, std::string* out);
  void AppendTotals(const ReplyTotals& totals, std::string* out);

  const Api api_;
  const ReplyForm form_;
  const TokenTable* table_;
  std::string head_;  // up to the choices
  std::vector<Choice> choices_;
  std::string prompt_text_;  // echo: each choice begins with it
};

}  // namespace baleen::router::openai
