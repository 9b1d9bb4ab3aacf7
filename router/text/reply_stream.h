// The tokens of one reply to what a client sees: detokenized, split into reasoning and answer,
// calls of tools taken out of the answer, and the rest ended by stop texts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "router/text/detokenizer.h"
#include "router/text/reasoning.h"
#include "router/text/reply/reply_delta.h"
#include "router/text/reply/stop_matcher.h"
#include "router/text/reply/tool_call_parser.h"

namespace baleen::router {

// Not thread-safe; one for each reply.
class ReplyStream {
 public:
  struct Options {
    // Off: all text is content. For Generate.
    bool splits_reasoning = true;
    // The prompt ends with <think> (RenderedPrompt::opens_reasoning).
    bool starts_inside = false;
    // Ids of <think> and </think>. If either is -1, not one token, the tags are looked for in the
    // text.
    std::int32_t open_id = -1;
    std::int32_t close_id = -1;
    // Calls of tools are looked for in the answer if all of these are known; 1 to kToolCallsMax.
    ToolTokens tool_tokens;
    std::uint32_t tool_calls_max = kToolCallsMax;
    // Null: none. Looked for in content; neither in reasoning nor in arguments.
    std::shared_ptr<const StopTexts> stop_texts;
    // A stop text that ends before so many tokens is text.
    std::uint32_t min_tokens = 0;
  };

  // `table` outlives this.
  ReplyStream(const TokenTable* table, Options options);

  // Appends what the tokens add. Ids of end-of-sequence tokens and others that have no text may be
  // among them. Returns how many it took: fewer than there are only if the reply stops with the
  // last of those; none once it has.
  std::size_t Push(std::span<const std::int32_t> ids, ReplyDelta* delta);

  // The reply ends, for whatever reason: appends what was kept back.
  void Finish(ReplyDelta* delta);

  // The reply has ended by what it says: a stop text, or the last call that there may be.
  bool stopped() const { return matcher_.stopped() || (parser_ && parser_->full()); }
  // Calls of tools that it made; the last one may be cut off unless the model ended the reply.
  std::uint32_t tool_calls() const { return parser_ ? parser_->calls() : 0; }

  // Tokens up to and including </think>; all so far, if the reply is still reasoning; 0 if it does
  // not reason.
  std::uint32_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  void PushOne(std::int32_t id, ReplyDelta* delta);
  // True if `id` is a tag where it stands.
  bool TakeReasoningTag(std::int32_t id, ReplyDelta* delta);
  bool TakeToolTag(std::int32_t id, ReplyDelta* delta);
  // The stages behind the detokenizer, from each on.
  void Text(std::string_view text, ReplyDelta* delta);
  void Content(std::string_view text, ReplyDelta* delta);
  void Plain(std::string_view text, ReplyDelta* delta);
  // Passes on, as content, what the stage before has put into `stage`.
  void FromSplitter(ReplyDelta& stage, ReplyDelta* delta);
  void FromParser(ReplyDelta& stage, ReplyDelta* delta);

  const Options options_;
  const bool tags_are_tokens_;
  Detokenizer detokenizer_;
  ReasoningSplitter splitter_;
  std::optional<ToolCallParser> parser_;
  StopMatcher matcher_;
  std::uint32_t tokens_ = 0;
  std::uint32_t reasoning_tokens_ = 0;
};

}  // namespace baleen::router
