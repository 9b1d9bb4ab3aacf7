// What the rules of a request make of its reply, token by token: what penalties look at, which
// tokens may not come yet, and what ends it. A pure function of the Start and the tokens so far, so
// that a decode rank goes on where a prefill rank began.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "worker/engine/messages.h"
#include "worker/model/model.h"

namespace baleen::worker {

class ReplyRules {
 public:
  // `start` has passed CheckStart. Time and memory in proportion to the prompt if a penalty looks
  // at it, else none.
  ReplyRules(const StartCommand& start, const ModelInfo& model);

  // The next token of the reply. Costs nothing without penalties, else the logarithm of the
  // different tokens so far, or moving them for one that is new.
  void Add(std::int32_t token);

  // Why the reply ends with the token that was added last; nothing if it goes on.
  std::optional<EndReason> ended() const { return ended_; }

  // For the next token, as SequenceStep has them; valid until Add.
  std::span<const TokenUse> uses() const { return uses_; }
  std::span<const std::int32_t> banned() const;

 private:
  void CountPrompt(std::span<const std::int32_t> prompt, std::uint32_t vocabulary_size);

  const std::uint32_t tokens_min_;
  const std::uint32_t tokens_max_;
  const bool counts_reply_;
  std::vector<std::int32_t> ends_;    // that end the reply; sorted
  std::vector<std::int32_t> banned_;  // until tokens_min; none if that is 0
  std::vector<TokenUse> uses_;        // by token
  std::uint32_t tokens_ = 0;
  std::optional<EndReason> ended_;
};

}  // namespace baleen::worker
