// A whole answer: parts in, one JSON text out.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "router/server/openai/reply/reply_json.h"
#include "router/server/openai/request/reply_form.h"

namespace baleen::router::openai {

// Of an answer that is collected. 16 choices of 32,768 tokens are 2 MB of text; with 20
// log-probabilities for each they would be 800 MB, which must be streamed.
inline constexpr std::size_t kAnswerBytesMax = std::size_t{32} << 20;

class AnswerWriter {
 public:
  // `table`: of the model's tokens, borrowed; null without a tokenizer.
  AnswerWriter(const ReplyForm& form, const TokenTable* table) : form_(form), table_(table) {}

  void Add(Api api, ReplyPart part);

  // What Finish would write, about; over kAnswerBytesMax it must not be collected any further.
  std::size_t bytes() const { return bytes_; }

  // Precondition: a part with totals was added.
  std::string Finish(const AnswerHead& head) const;

 private:
  struct Choice {
    std::string reasoning;
    std::string content;
    std::vector<ToolCallDelta> tool_calls;  // added up
    TokenIds token_ids;
    std::string chat_logprobs;  // members of the array
    CompletionLogprobs logprobs;
    std::optional<ChoiceFinish> finish;
  };

  void AddLogprobs(Api api, const ReplyPart& part, Choice& choice);
  void AppendMessage(const Choice& choice, std::string* out) const;
  void AppendCompletion(Choice choice, std::string* out) const;

  const ReplyForm form_;
  const TokenTable* table_;
  std::vector<Choice> choices_;
  TokenIds prompt_token_ids_;
  std::string prompt_text_;
  std::vector<PromptTokenLogprobs> prompt_logprobs_;
  ReplyTotals totals_;
  std::size_t bytes_ = 0;
};

}  // namespace baleen::router::openai
