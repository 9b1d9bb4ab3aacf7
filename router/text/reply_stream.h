// The tokens of one reply to the text that a client sees: detokenized, split into reasoning and
// answer.
#pragma once

#include <cstdint>
#include <span>

#include "router/text/detokenizer.h"
#include "router/text/reasoning.h"

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
  };

  // `table` outlives this.
  ReplyStream(const TokenTable* table, const Options& options);

  // Appends what the tokens add. Ids of end-of-sequence tokens and others that have no text may be
  // among them.
  void Push(std::span<const std::int32_t> ids, ReplyDelta* delta);

  // The reply ends, for whatever reason.
  void Finish(ReplyDelta* delta);

  // Tokens up to and including </think>; all so far, if the reply is still reasoning; 0 if it does
  // not reason.
  std::uint32_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  void PushOne(std::int32_t id, ReplyDelta* delta);
  // True if `id` is a tag where it stands.
  bool TakeTag(std::int32_t id, ReplyDelta* delta);

  const bool splits_reasoning_;
  const bool tags_are_tokens_;
  const std::int32_t open_id_;
  const std::int32_t close_id_;
  Detokenizer detokenizer_;
  ReasoningSplitter splitter_;
  std::uint32_t tokens_ = 0;
  std::uint32_t reasoning_tokens_ = 0;
};

}  // namespace baleen::router
