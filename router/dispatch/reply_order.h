// Puts the tokens of one attempt in order: delivers 0, 1, 2, ..., each once.
//
// Two ranks send the tokens of a request over two streams: the decode rank's first token may
// overtake the prefill rank's. The few that come early are kept; a duplicate is told apart by its
// index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "router/dispatch/messages.h"

namespace baleen::router {

// Tokens that may wait for one before them. The decode rank starts after the prefill rank has sent
// token 0, so what is early has waited on the network only: 256 tokens are more than a second at 5
// ms a token.
inline constexpr std::size_t kEarlyTokensMax = 256;

class ReplyOrder {
 public:
  enum class Verdict { kAccepted, kDuplicate, kTooEarly };

  // Takes the token of index `sequence`. kAccepted: `ready` holds, appended, the tokens that can be
  // delivered now.
  Verdict Accept(std::uint32_t sequence, ReplyToken token, std::vector<ReplyToken>& ready);

  // The usual case of Accept: true when `sequence` is the next one and nothing waits for it. It can
  // then be delivered, and is counted as made ready.
  bool AcceptNext(std::uint32_t sequence) {
    if (sequence != next_ || !early_.empty()) return false;
    ++next_;
    return true;
  }

  // Tokens made ready so far: the index of the next one.
  std::uint32_t next() const { return next_; }

  // Forgets what is kept; for a new attempt. Precondition: nothing was made ready.
  void Restart();

 private:
  std::uint32_t next_ = 0;
  std::map<std::uint32_t, ReplyToken> early_;
};

}  // namespace baleen::router
