// Why a request went where it went, for people: which ranks were considered, why some were left
// out, what the others scored, and how the winner was found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "router/policy/filter.h"
#include "router/policy/pick.h"

namespace baleen::router {

inline constexpr std::size_t kExplanationBytesMax = 4096;
inline constexpr std::size_t kExplainedRanksMax = 16;  // of each stage, the best

// A rank that fitted.
struct RankExplanation {
  std::string name;
  std::uint32_t cached_tokens = 0;
  double first_token_s = 0.0;
  double score = 0.0;
};

struct StageExplanation {
  Role role = Role::kMixed;
  Verdicts verdicts;
  // The winner, then the best others, highest score first; at most kExplainedRanksMax.
  std::vector<RankExplanation> ranks;
  Why why = Why::kOnly;
  std::uint32_t near_equals = 0;
};

struct RouteExplanation {
  bool whole = false;  // the mixed rank won against the pair
  std::vector<StageExplanation> stages;
};

// `pick.winner` null: no rank fitted.
StageExplanation ExplainStage(Role role, const Verdicts& verdicts,
                              std::span<const Candidate> candidates, const Pick& pick);

// One line of printable ASCII of at most kExplanationBytesMax bytes (docs/routing.md), which begins
// with `before`. What does not fit is cut at the end of a rank, and "..." says so.
std::string ToText(const RouteExplanation& explanation, std::string_view before = "");

}  // namespace baleen::router
