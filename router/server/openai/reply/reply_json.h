// The pieces that streamed and whole answers of the OpenAI API have in common, as JSON appended to
// a string.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "router/server/generation/reply_part.h"
#include "router/text/detokenizer.h"

namespace baleen::router::openai {

enum class Api : std::uint8_t { kChat, kCompletions };

// What all events of an answer say.
struct AnswerHead {
  Api api = Api::kChat;
  std::string request_id;
  std::string model;
  std::string_view model_digest;  // of the checkpoint: the same one answers the same
  absl::Time created;
};

// {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":...  and no more.
void AppendHead(const AnswerHead& head, bool stream, std::string* out);

// "stop", or null without one.
void AppendFinish(const std::optional<ChoiceFinish>& finish, std::string* out);

void AppendUsage(const ReplyTotals& totals, std::string* out);
// What the API of OpenAI has no place for: the seed, where it ran, how fast.
void AppendDetails(const ReplyTotals& totals, std::string* out);

// [1,2,3]
void AppendTokenIds(std::span<const std::int32_t> ids, std::string* out);

// Members of "tool_calls" of a delta.
void AppendToolCallDeltas(std::span<const ToolCallDelta> calls, std::string* out);

// Members of "content" of a chat choice's "logprobs". `table` null: no texts.
void AppendChatLogprobs(std::span<const std::int32_t> ids, std::span<const TokenLogprobs> logprobs,
                        const TokenTable* table, std::string* out);

// Of a completion's choice: four arrays side by side, each begun and not closed.
class CompletionLogprobs {
 public:
  // Null `logprobs`: the prompt's first token.
  void Add(std::int32_t id, const TokenLogprobs* logprobs, const TokenTable* table);
  bool empty() const { return tokens_.empty(); }
  std::size_t bytes() const {
    return tokens_.size() + values_.size() + tops_.size() + offsets_.size();
  }
  // {"tokens":[...],...}; empties it, but goes on counting the text's characters.
  void Take(std::string* out);

 private:
  std::string tokens_;
  std::string values_;
  std::string tops_;
  std::string offsets_;
  std::uint64_t characters_ = 0;  // of the text so far
};

// Members of "prompt_logprobs", as vLLM writes them.
void AppendPromptLogprobs(std::span<const PromptTokenLogprobs> logprobs, const TokenTable* table,
                          std::string* out);

}  // namespace baleen::router::openai
