// Which workers serve a request: filter, score, pick. Pure functions of a ClusterView.
//
// Filter: role, model, taking requests, not avoided, memory enough; then, for now: not suspect, a
// free sequence, free KV blocks. Score, in [0, 1]: prefill ranks by prompt tokens that wait, decode
// ranks by context tokens held and reserved. Pick: the best pair of prefill and decode rank, or the
// best mixed rank, whichever scores higher. Ties: the pair before the mixed rank, then the lower
// worker name.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "proto/contract/status.h"
#include "router/policy/cluster_view.h"

namespace baleen::router {

struct RouteQuery {
  std::string_view model;
  std::uint32_t prompt_tokens = 0;  // 1 or more
  std::uint32_t tokens_max = 0;     // of the reply, 1 or more
  std::span<const WorkerId> avoid;  // workers that have failed this request already
};

// Prefill and decode rank. Equal: that one rank does all of it, without a KV transfer.
struct RoutePlan {
  WorkerId prefill;
  WorkerId decode;

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

// How much waiting prompt tokens (time to first token) and held context tokens (time between
// tokens) count. They add up to 1.
struct RouteWeights {
  double prefill = 0.5;
  double decode = 0.5;
};

using RouteResult = std::variant<RoutePlan, RouteRefusal>;

RouteResult PlanRoute(const ClusterView& view, const RouteQuery& query,
                      const RouteWeights& weights = {});

// What a plan gives to each of its workers to do.
Work PrefillWork(const RouteQuery& query);
Work DecodeWork(const RouteQuery& query);
Work WholeWork(const RouteQuery& query);

}  // namespace baleen::router
