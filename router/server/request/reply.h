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

// Tokens that may wait for a client that does not read. With 20 log-probabilities each, of 5 + 2
// bytes of id and framing and 5 of value, they still fit one message.
inline constexpr std::size_t kPendingTokensMax = 4096;
static_assert(kPendingTokensMax * (contract::kLogprobsMax + 2) * 16 < contract::kMessageBytesMax);

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
  std::size_t pending_tokens() const { return token_ids_.size(); }
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
