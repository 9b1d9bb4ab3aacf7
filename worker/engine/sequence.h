// A request on this rank, from its Start to its end. Owned by the engine, touched by its thread
// only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "worker/cache/block_pool.h"
#include "worker/engine/messages.h"
#include "worker/engine/rules/reply_rules.h"
#include "worker/grammar/reply_grammar.h"

namespace baleen::worker {

// kWaiting -> kPrefilling -> kDecoding                  leg kWhole
// kWaiting -> kPrefilling -> kHandingOver               leg kPrefill
// kWaiting -> kReceiving -> kDecoding                   leg kDecode
enum class Phase : std::uint8_t {
  kWaiting,      // for a place and for blocks
  kPrefilling,   // its prompt is being computed
  kReceiving,    // blocks are reserved, KV is on its way
  kDecoding,     // one token a step
  kHandingOver,  // all KV is offered; the blocks stay until the peer has verified them
  kEnded,        // has had its Ended; swept out before the next plan
};

struct Sequence {
  StartCommand start;
  absl::Duration deadline = absl::InfiniteDuration();  // on the monotonic clock
  Phase phase = Phase::kWaiting;
  std::uint32_t blocks_needed = 0;
  BlockList blocks;
  std::optional<ReplyRules> rules;        // from admission on
  std::unique_ptr<ReplyGrammar> grammar;  // null: none

  std::uint32_t computed = 0;       // positions whose KV is in the blocks
  std::uint32_t cached_tokens = 0;  // those of them that were found in the cache
  // Until admission: what the cache held when the request came.
  std::uint32_t cached_tokens_expected = 0;
  std::uint32_t reply_next = 0;  // index in the reply of the next token to sample
  std::uint32_t emitted = 0;     // tokens reported by this rank
  std::int32_t last_token = -1;  // sampled and not fed back yet

  bool transfer_open = false;        // begun on the data plane, no final event yet
  std::uint32_t blocks_offered = 0;  // prefill leg
  std::uint64_t transfer_bytes = 0;

  std::uint32_t prompt_tokens() const { return static_cast<std::uint32_t>(start.prompt.size()); }
};

}  // namespace baleen::worker
