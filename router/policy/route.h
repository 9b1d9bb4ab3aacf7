// Which workers serve a request: filter, score, pick. Pure functions of a ClusterView.
//
// Filter: role, model, taking requests, not avoided, memory enough; then, for now: not suspect, a
// free sequence, free KV blocks. Score, in [0, 1]: prefill ranks by the predicted time to the first
// token, in which prompt tokens that wait count and those in the rank's cache do not; decode ranks
// by context tokens held and by KV head-room; mixed ranks by both. Pick (pick.h): sticky to the
// longest prefix until saturated, then the better of two drawn from near-equals. The pair of a
// prefill and a decode rank goes before a mixed rank that scores no higher.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "proto/contract/status.h"
#include "router/policy/cluster_view.h"
#include "router/policy/explain.h"
#include "router/policy/pick.h"

namespace baleen::router {

struct RouteQuery {
  std::string_view model;
  std::uint32_t prompt_tokens = 0;  // 1 or more
  std::uint32_t tokens_max = 0;     // of the reply, 1 or more
  std::span<const WorkerId> avoid;  // workers that have failed this request already
  // Blocks from the prompt's beginning that a rank has, by slot (PrefixIndex::Match); ranks beyond
  // the end have none.
  std::span<const std::uint16_t> cached_blocks;
  std::uint64_t draw = 0;  // random: decides between near-equals
};

// Prefill and decode rank. Equal: that one rank does all of it, without a KV transfer.
struct RoutePlan {
  WorkerId prefill;
  WorkerId decode;
  std::uint32_t cached_tokens = 0;  // of the prompt, that the prefill rank is expected to have

  bool whole() const { return prefill == decode; }
  friend bool operator==(const RoutePlan&, const RoutePlan&) = default;
};

// Why there is no plan. kNoWorker: no worker of a needed role; the message names it.
// kPromptTooLong: no worker is large enough, ever. kQueueFull: not now; ask again when the load has
// changed.
struct RouteRefusal {
  contract::Reason reason = contract::Reason::kNoWorker;
  std::string message;
};

// How much each score counts. Those of the decode part add up to 1, and so do the two parts.
struct RouteWeights {
  double prefill = 0.5;  // time to first token
  double decode = 0.5;   // time between tokens
  double decode_load = 0.5;
  double decode_head_room = 0.5;
  PickRules pick;
};

using RouteResult = std::variant<RoutePlan, RouteRefusal>;

// `explanation`, when not null, is filled if there is a plan.
RouteResult PlanRoute(const ClusterView& view, const RouteQuery& query,
                      const RouteWeights& weights = {}, RouteExplanation* explanation = nullptr);

// What a plan gives to each of its workers to do. `cached_tokens` of the prompt are not computed.
Work PrefillWork(const RouteQuery& query, std::uint32_t cached_tokens = 0);
Work DecodeWork(const RouteQuery& query);
Work WholeWork(const RouteQuery& query, std::uint32_t cached_tokens = 0);

// Whether one worker could take the part of the request that its role does: while it says the same
// as before, a request that has no plan gets none because of that worker.
bool CouldTake(const WorkerView& worker, const RouteQuery& query);

}  // namespace baleen::router
