// What goes into the engine's inbox and what comes out of its steps: plain values, no wire types.
// worker/attach converts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/contract/block_hash.h"
#include "proto/contract/ids.h"
#include "worker/grammar/grammar_spec.h"
#include "worker/model/model.h"

namespace baleen::worker {

// One attached router. Chosen by worker/attach, never reused while the process lives.
struct LinkId {
  std::uint64_t value = 0;
  auto operator<=>(const LinkId&) const = default;
};

enum class Leg : std::uint8_t { kWhole, kPrefill, kDecode };  // as baleen.v1.Leg

struct StartCommand {
  LinkId link;
  contract::RequestKey key;
  Leg leg = Leg::kWhole;
  std::vector<std::int32_t> prompt;
  SampleSpec sampling;
  std::uint32_t tokens_max = 1;
  bool ignore_eos = false;
  absl::Duration time_left = absl::InfiniteDuration();
  contract::TransferId transfer;  // legs kPrefill and kDecode
  std::string peer_address;       // leg kPrefill: where to send the KV
  // End the reply like an end-of-sequence token, also with ignore_eos.
  std::vector<std::int32_t> stop_token_ids;
  std::uint32_t tokens_min = 0;  // neither those nor end-of-sequence tokens come before
  // Most probable tokens to report for each prompt token, 0 to 20, on the leg that computes the
  // prompt: all of it then, nothing is taken from the cache.
  std::optional<std::uint32_t> prompt_logprobs;
  std::optional<GrammarSpec> grammar;
  // One for each whole block of the prompt, or none: then nothing is kept or found.
  std::vector<contract::BlockHash> block_hashes;
};

struct CancelCommand {
  contract::RequestKey key;
};

struct ReleaseCommand {
  contract::RequestKey key;
};

struct DrainCommand {};

// The stream to a router is gone: end its requests without telling it.
struct LinkLostCommand {
  LinkId link;
};

using Command =
    std::variant<StartCommand, CancelCommand, ReleaseCommand, DrainCommand, LinkLostCommand>;

struct TokenOutput {
  contract::RequestKey key;
  std::uint32_t sequence = 0;  // index in the reply
  SampledToken token;
  bool with_logprobs = false;
};

// Of prompt tokens first, first + 1, ...; of each request in order, from token 0 on, before the
// reply's first token. Token 0, which nothing precedes, has none.
struct PromptLogprobsOutput {
  contract::RequestKey key;
  std::uint32_t first = 0;
  std::vector<std::optional<TokenLogprobs>> entries;
};

enum class EndReason : std::uint8_t { kStop, kLength, kHandedOver, kCancelled, kError };

struct EndedOutput {
  contract::RequestKey key;
  EndReason reason = EndReason::kError;
  std::uint32_t tokens = 0;  // emitted by this rank
  absl::Status status;       // not OK when reason is kError
  std::uint64_t kv_transfer_bytes = 0;
  std::uint32_t cached_tokens = 0;  // of the prompt, found in the cache
};

// As baleen.v1.LoadReport.
struct LoadReport {
  std::uint32_t sequences_running = 0;
  std::uint32_t sequences_waiting = 0;
  std::uint64_t prompt_tokens_pending = 0;
  std::uint64_t context_tokens_held = 0;
  std::uint32_t kv_blocks_used = 0;
  bool draining = false;
  bool forming = false;  // the group is not complete
  std::uint32_t kv_blocks_cached = 0;
  float prompt_tokens_per_second = 0.0f;  // see PromptRate; 0 = not known yet
};

// Everything that one engine step has to say to one router, in the order of the lists.
struct StepReport {
  std::uint64_t step = 0;
  std::vector<PromptLogprobsOutput> prompt_logprobs;
  std::vector<TokenOutput> tokens;
  std::vector<EndedOutput> ended;
  LoadReport load;
};

// Where step reports go. Called on the engine thread; must not block.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  virtual void Deliver(LinkId link, StepReport report) = 0;
};

}  // namespace baleen::worker
