// The choice among the ranks that fit: sticky until saturated, then the better of two drawn from
// those that are nearly as good as the best.
//
// Sticky: ranks that have the longest part of the prompt in their cache keep getting prompts that
// begin like it, until they would be too late; so a prefix is computed once, and a hot one spreads
// over as many ranks as it needs. The less of a prompt a rank has, the less it may be late for it.
// Drawn: several routers see the same loads, and would all send to
// the same best rank until its next report.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "router/policy/cluster_view.h"

namespace baleen::router {

struct Candidate {
  const WorkerView* worker = nullptr;
  std::uint32_t cached_tokens = 0;  // of the prompt
  double prefix_share = 0.0;        // the same as a share of the prompt
  // Until the first token; 0 for ranks that only decode.
  double first_token_s = 0.0;
  // Time of one full step of prompt tokens: what a prompt waits for anyway.
  double step_s = 0.0;
  double score = 0.0;  // in [0, 1]
};

struct PickRules {
  // A rank with all of the prompt is saturated when its first token would come later than so many
  // times the earliest one of all, and a step; with half of the prompt at half of that delay.
  double saturation = 2.0;
  // Scores that are less than this share below the best are nearly as good.
  double near_equal = 0.05;
};

enum class Why : std::uint8_t {
  kOnly,            // no other rank fits
  kBest,            // none is nearly as good
  kBestOfTwo,       // the better of two that were drawn
  kPrefix,          // it has the longest prefix
  kPrefixSaturated  // kBest or kBestOfTwo: those with the longest prefix are too late
};

std::string_view ToString(Why why);

struct Pick {
  const Candidate* winner = nullptr;
  Why why = Why::kOnly;
  std::uint32_t near_equals = 0;  // with the winner
};

// Precondition: not empty. `draw`: random.
Pick PickRank(std::span<const Candidate> candidates, const PickRules& rules, std::uint64_t draw);

}  // namespace baleen::router
