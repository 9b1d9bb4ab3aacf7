#include "router/policy/route.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "proto/contract/limits.h"
#include "router/policy/filter.h"
#include "router/policy/score/first_token.h"
#include "router/policy/score/head_room.h"
#include "router/policy/score/load.h"
#include "router/policy/score/prefix.h"

namespace baleen::router {
namespace {

using contract::Reason;

// A stage while its rank is looked for.
struct Search {
  Stage stage;
  Verdicts verdicts;
  std::vector<Candidate> candidates;
  Pick pick;

  // Keeps the memory of the candidates: a large cluster has thousands of them for each request.
  void Begin(const Stage& of) {
    stage = of;
    verdicts = {};
    candidates.clear();
    pick = {};
  }
};

// One for each role, in the order of the enum.
using Searches = std::array<Search, 3>;

Search& Of(Searches& searches, Role role) { return searches[static_cast<std::size_t>(role)]; }

Stage StageOf(Role role, const RouteQuery& query) {
  switch (role) {
    case Role::kPrefill:
      return {.role = role, .work = PrefillWork(query), .reserves = false};
    case Role::kDecode:
      return {.role = role, .work = DecodeWork(query)};
    case Role::kMixed:
      return {.role = role, .work = WholeWork(query)};
  }
  BALEEN_CHECK(false, "a role has one of three values");
}

// Asks the filter about every rank of the model.
void Filter(const ClusterView& view, const RouteQuery& query, Searches& searches) {
  const std::uint64_t model = ModelKey(query.model);
  for (const WorkerView& worker : view.workers) {
    if (worker.facts.model != model) continue;
    Search& search = Of(searches, worker.facts.role);
    const Verdict verdict = Judge(worker, search.stage, query.avoid);
    search.verdicts.Add(verdict, worker);
    if (verdict == Verdict::kFits) search.candidates.push_back({.worker = &worker});
  }
}

// Of the ranks that have measured theirs, on average.
double PromptTokensPerSecond(const Searches& searches) {
  double sum = 0.0;
  std::uint32_t measured = 0;
  for (const Search& search : searches) {
    if (search.stage.role == Role::kDecode) continue;
    for (const Candidate& candidate : search.candidates) {
      const double rate = candidate.worker->load.prompt_tokens_per_second;
      sum += rate;
      measured += rate > 0.0 ? 1 : 0;
    }
  }
  return measured > 0 ? sum / measured : kPromptTokensPerSecondNominal;
}

void Score(const RouteQuery& query, const RouteWeights& weights, double tokens_per_second,
           Search& search) {
  const bool computes = search.stage.role != Role::kDecode;
  const bool decodes = search.stage.role != Role::kPrefill;
  const double token_s = 1.0 / tokens_per_second;
  const double token_share = 1.0 / query.prompt_tokens;
  for (Candidate& candidate : search.candidates) {
    const WorkerView& worker = *candidate.worker;
    double first_token = 0.0;
    if (computes) {
      candidate.cached_tokens = CachedTokens(worker, query.cached_blocks, query.prompt_tokens);
      candidate.prefix_share = candidate.cached_tokens * token_share;
      candidate.first_token_s = FirstTokenSeconds(
          worker, query.prompt_tokens - candidate.cached_tokens, tokens_per_second);
      candidate.step_s = worker.facts.step_tokens_max * token_s;
      first_token = FirstTokenScore(candidate.first_token_s, candidate.step_s);
    }
    const double decode =
        decodes ? weights.decode_load * LoadScore(worker) +
                      weights.decode_head_room * HeadRoomScore(worker, search.stage.work)
                : 0.0;
    candidate.score = computes && decodes ? weights.prefill * first_token + weights.decode * decode
                      : computes          ? first_token
                                          : decode;
  }
}

RouteRefusal Refuse(const RouteQuery& query, const Search& search) {
  const Verdicts& verdicts = search.verdicts;
  const std::string_view role = ToString(search.stage.role);
  if (verdicts.considered() == 0) {
    return {Reason::kNoWorker,
            fmt::format("no {} worker is attached for model '{}'", role, query.model)};
  }
  if (verdicts.admitting() == 0) {
    return {Reason::kNoWorker,
            fmt::format("all {} {} workers of model '{}' are draining, wait for their group, or "
                        "have failed this request",
                        verdicts.considered(), role, query.model)};
  }
  if (verdicts.kv_blocks_largest < search.stage.work.kv_blocks) {
    return {Reason::kPromptTooLong,
            fmt::format("prompt of {} and reply of at most {} tokens need {} KV blocks on one {} "
                        "worker, the largest has {}",
                        query.prompt_tokens, query.tokens_max, search.stage.work.kv_blocks, role,
                        verdicts.kv_blocks_largest)};
  }
  return {Reason::kQueueFull, fmt::format("all {} {} workers of model '{}' are full",
                                          verdicts.admitting(), role, query.model)};
}

// The refusal to tell the client when no way works: the one that waiting may cure, else the one
// about the split, which names the role.
RouteRefusal Merge(const RouteRefusal& split, const RouteRefusal& mixed) {
  if (split.reason == Reason::kQueueFull) return split;
  if (mixed.reason == Reason::kQueueFull) return mixed;
  if (split.reason == Reason::kPromptTooLong) return split;
  if (mixed.reason == Reason::kPromptTooLong) return mixed;
  return split;
}

RouteRefusal RefuseAll(const RouteQuery& query, Searches& searches) {
  // A pair is as good as its scarcer half: a missing role cannot be cured by waiting for the other
  // one.
  const Search& prefill = Of(searches, Role::kPrefill);
  const Search& decode = Of(searches, Role::kDecode);
  const RouteRefusal mixed = Refuse(query, Of(searches, Role::kMixed));
  const bool prefill_fits = prefill.pick.winner != nullptr;
  const bool decode_fits = decode.pick.winner != nullptr;
  if (prefill_fits) return Merge(Refuse(query, decode), mixed);
  const RouteRefusal of_prefill = Refuse(query, prefill);
  const bool decode_decides = !decode_fits && of_prefill.reason == Reason::kQueueFull;
  return Merge(decode_decides ? Refuse(query, decode) : of_prefill, mixed);
}

void Explain(Searches& searches, const RoutePlan& plan, RouteExplanation& explanation) {
  explanation = {.whole = plan.whole()};
  for (Role role : {Role::kPrefill, Role::kDecode, Role::kMixed}) {
    const Search& search = Of(searches, role);
    if (search.verdicts.considered() == 0) continue;
    explanation.stages.push_back(
        ExplainStage(role, search.verdicts, search.candidates, search.pick));
  }
}

}  // namespace

Work PrefillWork(const RouteQuery& query, std::uint32_t cached_tokens) {
  return {.sequences = 1,
          .prompt_tokens = query.prompt_tokens - cached_tokens,
          .context_tokens = 0,
          .kv_blocks = BlocksOf(query.prompt_tokens)};
}

Work DecodeWork(const RouteQuery& query) {
  // The reply's last token is never fed back, so its KV is never made.
  const std::uint64_t context = std::uint64_t{query.prompt_tokens} + query.tokens_max - 1;
  return {.sequences = 1,
          .prompt_tokens = 0,
          .context_tokens = context,
          .kv_blocks = BlocksOf(context)};
}

Work WholeWork(const RouteQuery& query, std::uint32_t cached_tokens) {
  Work work = DecodeWork(query);
  work.prompt_tokens = query.prompt_tokens - cached_tokens;
  return work;
}

bool CouldTake(const WorkerView& worker, const RouteQuery& query) {
  return worker.facts.model == ModelKey(query.model) &&
         Judge(worker, StageOf(worker.facts.role, query), query.avoid) == Verdict::kFits;
}

RouteResult PlanRoute(const ClusterView& view, const RouteQuery& query, const RouteWeights& weights,
                      RouteExplanation* explanation) {
  BALEEN_CHECK(query.prompt_tokens >= 1 && query.tokens_max >= 1, "requests are validated");
  thread_local Searches searches;
  for (Role role : {Role::kPrefill, Role::kDecode, Role::kMixed}) {
    Of(searches, role).Begin(StageOf(role, query));
  }
  Filter(view, query, searches);
  const double tokens_per_second = PromptTokensPerSecond(searches);
  for (Search& search : searches) {
    if (search.candidates.empty()) continue;
    Score(query, weights, tokens_per_second, search);
    search.pick = PickRank(search.candidates, weights.pick, query.draw);
  }

  const Candidate* prefill = Of(searches, Role::kPrefill).pick.winner;
  const Candidate* decode = Of(searches, Role::kDecode).pick.winner;
  const Candidate* mixed = Of(searches, Role::kMixed).pick.winner;
  const bool can_split = prefill != nullptr && decode != nullptr;
  if (!can_split && mixed == nullptr) return RefuseAll(query, searches);
  const double split_score =
      can_split ? weights.prefill * prefill->score + weights.decode * decode->score : 0.0;
  const bool split = can_split && (mixed == nullptr || split_score >= mixed->score);
  const Candidate* first = split ? prefill : mixed;
  const RoutePlan plan{.prefill = first->worker->id,
                       .decode = split ? decode->worker->id : mixed->worker->id,
                       .cached_tokens = first->cached_tokens};
  if (explanation != nullptr) Explain(searches, plan, *explanation);
  return plan;
}

}  // namespace baleen::router
