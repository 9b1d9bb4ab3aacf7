// One choice of a reply: tokens in, what a client sees of them out. What comes together leaves
// together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "proto/contract/limits.h"
#include "router/dispatch/messages.h"
#include "router/policy/cluster_view.h"
#include "router/server/generation/reply_part.h"
#include "router/server/request/models.h"
#include "router/text/reply_stream.h"

namespace baleen::router {

// Tokens, and bytes of their text, that may wait for a client that does not read. They fit one
// message: a token takes 22 times at most 16 bytes (its id, its log-probability and 20 others, each
// an id of 5, a value of 5 and framing), the text what is counted, with half a MiB to spare for the
// token that goes over the limit; and the first chunk has the prompt's ids, of at most 5 bytes.
inline constexpr std::size_t kPendingTokensMax = 4096;
inline constexpr std::size_t kPendingTextBytesMax = std::size_t{1} << 20;
static_assert(kPendingTokensMax * (contract::kLogprobsMax + 2) * 16 + kPendingTextBytesMax +
                  (std::size_t{1} << 19) + contract::kContextTokensMax * std::size_t{5} <
              contract::kMessageBytesMax);

struct ChoiceOptions {
  bool splits_reasoning = false;            // a conversation: its reasoning apart from its answer
  bool opens_reasoning = false;             // the prompt ends inside the reasoning
  const ModelText* model = nullptr;         // borrowed
  std::vector<std::int32_t> end_token_ids;  // that have no text where they end the reply
  bool with_logprobs = false;
  bool finds_tool_calls = false;
  bool single_tool_call = false;
  std::shared_ptr<const StopTexts> stop_texts;  // null: none
  std::uint32_t tokens_min = 0;                 // no text ends the reply before
};

class ChoiceReply {
 public:
  explicit ChoiceReply(const ChoiceOptions& options);

  // The next token. True when the text ends with it, though the workers do not know: nothing may
  // be added any more.
  bool Add(ReplyToken token);
  // No token comes any more. Precondition: not finished.
  void Finish(FinishReason reason);

  // Something to take; always after Finish.
  bool pending() const { return !token_ids_.empty() || (finish_ && !finish_taken_); }
  // As much is pending as may wait.
  bool full() const;
  bool finished() const { return finish_.has_value(); }
  std::uint32_t tokens() const { return tokens_; }
  std::uint32_t reasoning_tokens() const { return stream_.reasoning_tokens(); }

  // Everything that is pending; nothing is then. Fills what is the choice's own.
  void Take(ReplyPart& part);

 private:
  std::size_t TextBytes() const;

  const std::vector<std::int32_t> end_token_ids_;
  const bool with_logprobs_;
  const TokenTable& table_;
  ReplyStream stream_;
  ReplyDelta delta_;
  TokenIds token_ids_;
  std::vector<TokenLogprobs> logprobs_;
  std::size_t logprob_text_bytes_ = 0;  // of the tokens in logprobs_
  std::uint32_t tokens_ = 0;            // ever added
  std::optional<ChoiceFinish> finish_;
  bool finish_taken_ = false;
};

}  // namespace baleen::router
