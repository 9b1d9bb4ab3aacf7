// The chunks of one reply: tokens in, serialized ChatChunk or GenerateChunk out. What comes
// together leaves together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/contract/limits.h"
#include "router/dispatch/messages.h"
#include "router/policy/cluster_view.h"
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

struct ReplyOptions {
  bool chat = false;  // ChatChunk with its reasoning apart, else GenerateChunk
  std::string request_id;
  const ModelText* model = nullptr;
  ModelIdentity identity;
  Sampling sampling;
  bool ignore_eos = false;
  bool opens_reasoning = false;
  std::uint32_t prompt_tokens = 0;
  TokenIds prompt_token_ids;  // to be returned; empty = not asked for
};

struct ReplyTimes {
  absl::Duration to_first_token;
  absl::Duration total;
};

class ReplyBuilder {
 public:
  explicit ReplyBuilder(ReplyOptions options);

  void Add(ReplyToken token);
  // The last chunk: finish reason, usage, timing. Precondition: `ending` is OK.
  void Finish(const Ending& ending, const ReplyTimes& times);

  bool pending() const { return !token_ids_.empty() || last_ != nullptr; }
  // As much is pending as may wait.
  bool full() const {
    return token_ids_.size() >= kPendingTokensMax ||
           delta_.reasoning.size() + delta_.content.size() >= kPendingTextBytesMax;
  }
  std::uint32_t tokens() const { return tokens_; }

  // The serialized chunk of everything that is pending; nothing is then.
  std::string Take();

 private:
  struct Last {
    Ending ending;
    ReplyTimes times;
  };

  template <typename Chunk>
  void Fill(Chunk& chunk);

  const ReplyOptions options_;
  ReplyStream stream_;
  ReplyDelta delta_;
  TokenIds token_ids_;
  std::vector<TokenLogprobs> logprobs_;
  std::uint32_t tokens_ = 0;  // ever added
  bool first_chunk_ = true;
  std::unique_ptr<Last> last_;
};

}  // namespace baleen::router
