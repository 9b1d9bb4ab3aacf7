// What dispatch says to workers and hears from them, and what it takes from and gives to the client
// side: plain values, no wire types. router/cluster converts to and from baleen.v1.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/block_hash.h"
#include "proto/contract/ids.h"
#include "proto/contract/limits.h"
#include "router/policy/cluster_view.h"
#include "text/grammar/grammar.h"

namespace baleen::router {

using TokenIds = std::vector<std::int32_t>;

struct LogitBias {
  std::int32_t token = 0;
  float bias = 0.0f;

  friend bool operator==(const LogitBias&, const LogitBias&) = default;
};

// As baleen.v1.Sampling; validated before it gets here.
struct Sampling {
  float temperature = 0.0f;
  std::uint32_t top_k = 0;
  float top_p = 1.0f;
  std::uint64_t seed = 0;
  std::int32_t logprobs = -1;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::vector<LogitBias> biases;  // of different tokens

  friend bool operator==(const Sampling&, const Sampling&) = default;
};

// As baleen.v1.Grammar; compiled once before it gets here.
struct GrammarSpec {
  text::GrammarSource source;
  std::optional<std::int32_t> after_token;  // it begins after the first token of this id

  friend bool operator==(const GrammarSpec&, const GrammarSpec&) = default;
};

using BlockHashes = std::vector<contract::BlockHash>;

enum class Leg : std::uint8_t { kWhole, kPrefill, kDecode };  // as baleen.v1.Leg

// To a worker.
struct StartFrame {
  contract::RequestKey key;
  Leg leg = Leg::kWhole;
  std::shared_ptr<const TokenIds> prompt;
  Sampling sampling;
  std::uint32_t tokens_max = 1;
  bool ignore_eos = false;
  absl::Duration time_left = absl::InfiniteDuration();
  contract::TransferId transfer;  // kPrefill and kDecode
  std::string peer_address;       // kPrefill
  std::vector<std::int32_t> stop_token_ids;
  std::uint32_t tokens_min = 0;
  std::optional<std::uint32_t> prompt_logprobs;     // not for kDecode
  std::shared_ptr<const GrammarSpec> grammar;       // null: none
  std::shared_ptr<const BlockHashes> block_hashes;  // null: none
};
struct CancelFrame {
  contract::RequestKey key;
};
struct ReleaseFrame {
  contract::RequestKey key;
};
struct DrainFrame {};
using RouterFrame = std::variant<StartFrame, CancelFrame, ReleaseFrame, DrainFrame>;

struct TokenLogprobs {
  float sampled = 0.0f;
  std::vector<std::pair<std::int32_t, float>> top;  // most probable first
};

struct ReplyToken {
  std::int32_t id = -1;
  std::optional<TokenLogprobs> logprobs;
};

// From a worker.
struct TokenFrame {
  contract::RequestKey key;
  std::uint32_t sequence = 0;  // index in the reply
  ReplyToken token;
};

// Of prompt tokens first, first + 1, ...; in order. Token 0, which nothing precedes, has none.
struct PromptLogprobs {
  std::uint32_t first = 0;
  std::vector<std::optional<TokenLogprobs>> entries;
};

struct PromptLogprobsFrame {
  contract::RequestKey key;
  PromptLogprobs logprobs;
};

// What came into a worker's cache and went out of it, in this order: all went (if cleared), stored,
// evicted.
struct CacheEventsFrame {
  bool cleared = false;
  BlockHashes stored;
  BlockHashes evicted;
};

enum class EndReason : std::uint8_t { kStop, kLength, kHandedOver, kCancelled, kError };

struct EndedFrame {
  contract::RequestKey key;
  EndReason reason = EndReason::kError;
  std::uint32_t tokens = 0;  // emitted by this rank
  absl::Status status;       // not OK when reason is kError
  std::uint64_t kv_transfer_bytes = 0;
  std::uint32_t cached_tokens = 0;  // of the prompt, found in the worker's cache
};

// From the client side.
class ReplySink;

struct Request {
  contract::RequestId id;
  std::string model;
  std::shared_ptr<const TokenIds> prompt;  // not empty
  Sampling sampling;
  std::uint32_t tokens_max = 1;
  bool ignore_eos = false;
  // End the reply like an end-of-sequence token, also with ignore_eos.
  std::vector<std::int32_t> stop_token_ids;
  std::uint32_t tokens_min = 0;  // neither those nor end-of-sequence tokens come before
  // Most probable tokens to report for each prompt token (ReplySink::PromptLogprobs).
  std::optional<std::uint32_t> prompt_logprobs;
  std::shared_ptr<const GrammarSpec> grammar;  // null: none
  // contract::HashBlocks of the prompt; null: nothing is kept in, or found in, a cache.
  std::shared_ptr<const BlockHashes> block_hashes;
  std::string tenant;  // for whom it is counted; "": anonymous
  std::uint32_t priority = contract::kPriorityDefault;
  bool explain = false;                                // ReplySink::Routed
  absl::Duration deadline = absl::InfiniteDuration();  // on the monotonic clock
  ReplySink* sink = nullptr;                           // outlives the request's ending
};

// To the client side.
enum class FinishReason : std::uint8_t { kStop, kLength };

struct Ending {
  absl::Status status;  // OK: finished for `finish`; else a contract::MakeStatus
  FinishReason finish = FinishReason::kStop;
  std::uint32_t tokens = 0;    // delivered
  std::string prefill_worker;  // names; empty when the request was never started
  std::string decode_worker;
  std::uint64_t kv_transfer_bytes = 0;
  std::uint32_t cached_tokens = 0;  // of the prompt, found in a worker's cache
  // With kQueueFull: when to try again; zero: not known.
  absl::Duration retry_after;
};

}  // namespace baleen::router
