#include "router/policy/cluster_view.h"

#include <algorithm>

#include "observability/base/check.h"
#include "proto/contract/limits.h"

namespace baleen::router {

std::string_view ToString(Role role) {
  switch (role) {
    case Role::kPrefill:
      return "prefill";
    case Role::kDecode:
      return "decode";
    case Role::kMixed:
      return "mixed";
  }
  BALEEN_CHECK(false, "a role has one of three values");
}

Work& Work::operator+=(const Work& other) {
  sequences += other.sequences;
  prompt_tokens += other.prompt_tokens;
  context_tokens += other.context_tokens;
  kv_blocks += other.kv_blocks;
  return *this;
}

Work& Work::operator-=(const Work& other) {
  BALEEN_CHECK(sequences >= other.sequences && prompt_tokens >= other.prompt_tokens &&
                   context_tokens >= other.context_tokens && kv_blocks >= other.kv_blocks,
               "work is given back at most once");
  sequences -= other.sequences;
  prompt_tokens -= other.prompt_tokens;
  context_tokens -= other.context_tokens;
  kv_blocks -= other.kv_blocks;
  return *this;
}

std::uint64_t ModelKey(std::string_view name) { return std::hash<std::string_view>{}(name); }

RankFacts FactsOf(const WorkerInfo& info) {
  return {.model = ModelKey(info.model.name),
          .role = info.role,
          .kv_blocks_total = info.kv_blocks_total,
          .sequences_max = info.sequences_max,
          .step_tokens_max = info.step_tokens_max};
}

const WorkerView* ClusterView::Find(WorkerId id) const {
  const auto it = std::lower_bound(
      workers.begin(), workers.end(), id,
      [](const WorkerView& worker, WorkerId wanted) { return worker.id < wanted; });
  return it != workers.end() && it->id == id ? &*it : nullptr;
}

std::uint64_t BlocksOf(std::uint64_t tokens) {
  return (tokens + contract::kBlockTokens - 1) / contract::kBlockTokens;
}

}  // namespace baleen::router
