#include "router/policy/route.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "proto/contract/limits.h"

namespace baleen::router {
namespace {

using contract::Reason;

// One part of a plan: which role does it, and what it takes.
struct Stage {
  Role role = Role::kMixed;
  Work work;
  // Whether the blocks must be free now. A rank that only computes prompts queues them before it
  // takes blocks.
  bool reserves = true;
};

struct Candidate {
  const WorkerView* worker = nullptr;
  double score = 0.0;
};

using StageResult = std::variant<Candidate, RouteRefusal>;

// 1 for an idle rank, falling towards 0; 1/2 when a whole step's budget of prompt tokens waits.
double PrefillScore(const WorkerView& worker) {
  const double step = worker.info->step_tokens_max;
  return step / (step + static_cast<double>(worker.PromptTokensPending()));
}

// The share of the rank's KV memory that no context claims.
double DecodeScore(const WorkerView& worker) {
  const double capacity =
      static_cast<double>(worker.info->kv_blocks_total) * contract::kBlockTokens;
  return std::max(0.0, 1.0 - static_cast<double>(worker.ContextTokens()) / capacity);
}

bool Better(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.worker->info->name != b.worker->info->name) {
    return a.worker->info->name < b.worker->info->name;
  }
  return a.worker->id < b.worker->id;
}

bool HasRoom(const WorkerView& worker, const Stage& stage) {
  if (worker.suspect) return false;
  if (worker.Sequences() + stage.work.sequences > worker.info->sequences_max) return false;
  return !stage.reserves ||
         worker.KvBlocks() + stage.work.kv_blocks <= worker.info->kv_blocks_total;
}

// Of a filter's steps, how many workers were left.
struct Survivors {
  std::uint32_t capable = 0;
  std::uint32_t admitting = 0;
  std::uint64_t kv_blocks_largest = 0;  // among the admitting
};

RouteRefusal Refuse(const RouteQuery& query, const Stage& stage, const Survivors& left) {
  if (left.capable == 0) {
    return {Reason::kNoWorker, fmt::format("no {} worker is attached for model '{}'",
                                           ToString(stage.role), query.model)};
  }
  if (left.admitting == 0) {
    return {Reason::kNoWorker,
            fmt::format("all {} {} workers of model '{}' are draining, wait for their group, or "
                        "have failed this request",
                        left.capable, ToString(stage.role), query.model)};
  }
  if (left.kv_blocks_largest < stage.work.kv_blocks) {
    return {Reason::kPromptTooLong,
            fmt::format("prompt of {} and reply of at most {} tokens need {} KV blocks on one {} "
                        "worker, the largest has {}",
                        query.prompt_tokens, query.tokens_max, stage.work.kv_blocks,
                        ToString(stage.role), left.kv_blocks_largest)};
  }
  return {Reason::kQueueFull, fmt::format("all {} {} workers of model '{}' are full",
                                          left.admitting, ToString(stage.role), query.model)};
}

// The best worker for a stage.
template <typename Score>
StageResult PickStage(const ClusterView& view, const RouteQuery& query, const Stage& stage,
                      const Score& score) {
  Survivors left;
  std::optional<Candidate> best;
  for (const WorkerView& worker : view.workers) {
    if (worker.info->role != stage.role || worker.info->model.name != query.model) continue;
    ++left.capable;
    const bool avoided = std::ranges::find(query.avoid, worker.id) != query.avoid.end();
    if (avoided || !worker.load.takes_requests()) continue;
    ++left.admitting;
    left.kv_blocks_largest =
        std::max<std::uint64_t>(left.kv_blocks_largest, worker.info->kv_blocks_total);
    if (stage.work.kv_blocks > worker.info->kv_blocks_total || !HasRoom(worker, stage)) continue;
    const Candidate candidate{&worker, score(worker)};
    if (!best || Better(candidate, *best)) best = candidate;
  }
  if (best) return *best;
  return Refuse(query, stage, left);
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

}  // namespace

Work PrefillWork(const RouteQuery& query) {
  return {.sequences = 1,
          .prompt_tokens = query.prompt_tokens,
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

Work WholeWork(const RouteQuery& query) {
  Work work = DecodeWork(query);
  work.prompt_tokens = query.prompt_tokens;
  return work;
}

RouteResult PlanRoute(const ClusterView& view, const RouteQuery& query,
                      const RouteWeights& weights) {
  BALEEN_CHECK(query.prompt_tokens >= 1 && query.tokens_max >= 1, "requests are validated");
  const Stage prefill_stage{.role = Role::kPrefill, .work = PrefillWork(query), .reserves = false};
  const Stage decode_stage{.role = Role::kDecode, .work = DecodeWork(query)};
  const Stage mixed_stage{.role = Role::kMixed, .work = WholeWork(query)};
  const StageResult prefill = PickStage(view, query, prefill_stage, PrefillScore);
  const StageResult decode = PickStage(view, query, decode_stage, DecodeScore);
  const StageResult mixed =
      PickStage(view, query, mixed_stage, [&weights](const WorkerView& worker) {
        return weights.prefill * PrefillScore(worker) + weights.decode * DecodeScore(worker);
      });

  const auto* prefill_best = std::get_if<Candidate>(&prefill);
  const auto* decode_best = std::get_if<Candidate>(&decode);
  const auto* mixed_best = std::get_if<Candidate>(&mixed);
  const bool can_split = prefill_best != nullptr && decode_best != nullptr;
  const double split_score =
      can_split ? weights.prefill * prefill_best->score + weights.decode * decode_best->score : 0.0;
  if (can_split && (mixed_best == nullptr || split_score >= mixed_best->score)) {
    return RoutePlan{.prefill = prefill_best->worker->id, .decode = decode_best->worker->id};
  }
  if (mixed_best != nullptr) {
    return RoutePlan{.prefill = mixed_best->worker->id, .decode = mixed_best->worker->id};
  }
  // A pair is as good as its scarcer half: a missing role cannot be cured by waiting for the other
  // one.
  const auto* prefill_refusal = std::get_if<RouteRefusal>(&prefill);
  const auto* decode_refusal = std::get_if<RouteRefusal>(&decode);
  const bool decode_decides =
      prefill_refusal == nullptr ||
      (decode_refusal != nullptr && prefill_refusal->reason == Reason::kQueueFull);
  return Merge(decode_decides ? *decode_refusal : *prefill_refusal, std::get<RouteRefusal>(mixed));
}

}  // namespace baleen::router
