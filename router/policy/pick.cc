#include "router/policy/pick.h"

#include <algorithm>

#include "observability/base/check.h"

namespace baleen::router {
namespace {

// A number below `n` out of 32 random bits.
std::uint32_t Below(std::uint32_t n, std::uint32_t bits) {
  return static_cast<std::uint32_t>((std::uint64_t{bits} * n) >> 32);
}

// The better of two drawn from the candidates with at least `cached_tokens` whose score is near the
// best of those.
Pick BetterOfTwo(std::span<const Candidate> candidates, std::uint32_t cached_tokens,
                 const PickRules& rules, std::uint64_t draw) {
  double best = 0.0;
  for (const Candidate& candidate : candidates) {
    if (candidate.cached_tokens >= cached_tokens) best = std::max(best, candidate.score);
  }
  const double least = best * (1.0 - rules.near_equal);
  const auto is_near = [=](const Candidate& candidate) {
    return candidate.cached_tokens >= cached_tokens && candidate.score >= least;
  };
  const auto count = static_cast<std::uint32_t>(std::ranges::count_if(candidates, is_near));
  const std::uint32_t first = Below(count, static_cast<std::uint32_t>(draw));
  std::uint32_t second = first;
  if (count > 1) {
    second = Below(count - 1, static_cast<std::uint32_t>(draw >> 32));
    if (second >= first) ++second;
  }
  const Candidate* drawn[2] = {nullptr, nullptr};
  std::uint32_t index = 0;
  for (const Candidate& candidate : candidates) {
    if (!is_near(candidate)) continue;
    if (index == first) drawn[0] = &candidate;
    if (index == second) drawn[1] = &candidate;
    ++index;
  }
  return {.winner = drawn[0]->score >= drawn[1]->score ? drawn[0] : drawn[1],
          .why = count == 1 ? Why::kBest : Why::kBestOfTwo,
          .near_equals = count};
}

}  // namespace

std::string_view ToString(Why why) {
  switch (why) {
    case Why::kOnly:
      return "only";
    case Why::kBest:
      return "best";
    case Why::kBestOfTwo:
      return "best_of_two";
    case Why::kPrefix:
      return "prefix";
    case Why::kPrefixSaturated:
      return "prefix_saturated";
  }
  BALEEN_CHECK(false, "a reason has one of five values");
}

Pick PickRank(std::span<const Candidate> candidates, const PickRules& rules, std::uint64_t draw) {
  BALEEN_CHECK(!candidates.empty(), "there is a rank to pick");
  if (candidates.size() == 1) return {.winner = &candidates[0], .near_equals = 1};
  const Candidate* earliest = &candidates[0];
  const Candidate* longest = &candidates[0];  // the earliest of those with the longest prefix
  for (const Candidate& candidate : candidates) {
    if (candidate.first_token_s < earliest->first_token_s) earliest = &candidate;
    if (candidate.cached_tokens > longest->cached_tokens ||
        (candidate.cached_tokens == longest->cached_tokens &&
         candidate.first_token_s < longest->first_token_s)) {
      longest = &candidate;
    }
  }
  if (longest->cached_tokens == 0) return BetterOfTwo(candidates, 0, rules, draw);
  const double delay_max = longest->prefix_share *
                           ((rules.saturation - 1.0) * earliest->first_token_s + longest->step_s);
  const bool saturated = longest->first_token_s > earliest->first_token_s + delay_max;
  Pick pick = BetterOfTwo(candidates, saturated ? 0 : longest->cached_tokens, rules, draw);
  pick.why = saturated ? Why::kPrefixSaturated : Why::kPrefix;
  return pick;
}

}  // namespace baleen::router
