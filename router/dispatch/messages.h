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
#include "proto/contract/ids.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

using TokenIds = std::vector<std::int32_t>;

// As baleen.v1.Sampling; validated before it gets here.
struct Sampling {
  float temperature = 0.0f;
  std::uint32_t top_k = 0;
  float top_p = 1.0f;
  std::uint64_t seed = 0;
  std::int32_t logprobs = -1;

  friend bool operator==(const Sampling&, const Sampling&) = default;
};

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

enum class EndReason : std::uint8_t { kStop, kLength, kHandedOver, kCancelled, kError };

struct EndedFrame {
  contract::RequestKey key;
  EndReason reason = EndReason::kError;
  std::uint32_t tokens = 0;  // emitted by this rank
  absl::Status status;       // not OK when reason is kError
  std::uint64_t kv_transfer_bytes = 0;
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
};

}  // namespace baleen::router
