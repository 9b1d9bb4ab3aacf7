#include "router/policy/explain.h"

#include <fmt/format.h>

#include <algorithm>

namespace baleen::router {
namespace {

// Each piece goes in whole or not at all; after one that did not, none does.
class BoundedText {
 public:
  void Add(std::string_view piece) {
    if (cut_) return;
    cut_ = text_.size() + piece.size() > kExplanationBytesMax - kEllipsis.size();
    text_ += cut_ ? kEllipsis : piece;
  }

  std::string Take() && { return std::move(text_); }

 private:
  static constexpr std::string_view kEllipsis = " ...";

  std::string text_;
  bool cut_ = false;
};

RankExplanation ExplainRank(const Candidate& candidate) {
  return {.name = candidate.worker->info->name,
          .cached_tokens = candidate.cached_tokens,
          .first_token_s = candidate.first_token_s,
          .score = candidate.score};
}

void AddStage(const StageExplanation& stage, BoundedText& text) {
  text.Add(fmt::format("; {}: considered={}", ToString(stage.role), stage.verdicts.considered()));
  for (std::size_t i = 0; i < kVerdicts; ++i) {
    const auto verdict = static_cast<Verdict>(i);
    if (stage.verdicts.of(verdict) == 0) continue;
    text.Add(fmt::format(" {}={}", ToString(verdict), stage.verdicts.of(verdict)));
  }
  if (stage.ranks.empty()) return;
  text.Add(fmt::format(" why={} near_equals={}", ToString(stage.why), stage.near_equals));
  for (const RankExplanation& rank : stage.ranks) {
    text.Add(fmt::format(" [{} score={:.3f}", rank.name, rank.score) +
             (stage.role == Role::kDecode
                  ? std::string("]")
                  : fmt::format(" first_token_ms={:.1f} cached={}]", rank.first_token_s * 1e3,
                                rank.cached_tokens)));
  }
}

}  // namespace

StageExplanation ExplainStage(Role role, const Verdicts& verdicts,
                              std::span<const Candidate> candidates, const Pick& pick) {
  StageExplanation stage{
      .role = role, .verdicts = verdicts, .why = pick.why, .near_equals = pick.near_equals};
  if (pick.winner == nullptr) return stage;
  std::vector<const Candidate*> others;
  others.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    if (&candidate != pick.winner) others.push_back(&candidate);
  }
  const std::size_t listed = std::min(others.size(), kExplainedRanksMax - 1);
  std::ranges::partial_sort(others, others.begin() + static_cast<std::ptrdiff_t>(listed),
                            [](const Candidate* a, const Candidate* b) {
                              if (a->score != b->score) return a->score > b->score;
                              return a->worker->id < b->worker->id;
                            });
  stage.ranks.push_back(ExplainRank(*pick.winner));
  for (std::size_t i = 0; i < listed; ++i) stage.ranks.push_back(ExplainRank(*others[i]));
  return stage;
}

std::string ToText(const RouteExplanation& explanation, std::string_view before) {
  BoundedText text;
  text.Add(before);
  text.Add(explanation.whole ? "plan=whole" : "plan=split");
  for (const StageExplanation& stage : explanation.stages) AddStage(stage, text);
  return std::move(text).Take();
}

}  // namespace baleen::router
