// What a client hears of its request, piece by piece: plain values that each edge (gRPC, HTTP)
// writes in its own form.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "router/dispatch/messages.h"
#include "router/text/reasoning.h"

namespace baleen::router {

// Why a choice ended. kToolCalls: it made some, and stopped.
enum class ChoiceFinish : std::uint8_t { kStop, kLength, kToolCalls };

// As baleen.v1.Usage and Timing.
struct ReplyTotals {
  std::uint32_t prompt_tokens = 0;
  std::uint32_t completion_tokens = 0;
  std::uint32_t reasoning_tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint64_t seed = 0;

  std::string prefill_worker;
  std::string decode_worker;
  std::uint64_t kv_transfer_bytes = 0;
  absl::Duration to_first_token;
  absl::Duration total;
};

struct PromptTokenLogprobs {
  std::int32_t id = -1;
  std::optional<TokenLogprobs> logprobs;  // the prompt's first token has none
};

// What is new of one choice. Parts of a choice add up; those of several choices come mixed.
struct ReplyPart {
  std::uint32_t choice = 0;
  ReplyDelta delta;  // text, and tool calls with their ids
  TokenIds token_ids;
  std::uint32_t first_token_index = 0;  // in the choice, of token_ids[0]
  std::vector<TokenLogprobs> logprobs;  // one for each token id, or none
  std::optional<ChoiceFinish> finish;   // this is the choice's last part

  // Of the call, on its first part:
  TokenIds prompt_token_ids;  // when asked for
  std::string prompt_text;    // when asked for
  // When asked for: all prompt tokens in order, on parts before any token of the reply.
  std::vector<PromptTokenLogprobs> prompt_logprobs;

  // On the call's last part.
  std::optional<ReplyTotals> totals;
};

}  // namespace baleen::router
