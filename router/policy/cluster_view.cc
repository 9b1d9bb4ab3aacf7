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

std::uint64_t WorkerView::Sequences() const {
  const std::uint64_t reported =
      std::uint64_t{load.sequences_running} + load.sequences_waiting + since_report.sequences;
  return std::max<std::uint64_t>(reported, own.sequences);
}

std::uint64_t WorkerView::PromptTokensPending() const {
  return load.prompt_tokens_pending + since_report.prompt_tokens;
}

std::uint64_t WorkerView::ContextTokens() const {
  return std::max(load.context_tokens_held + since_report.context_tokens, own.context_tokens);
}

std::uint64_t WorkerView::KvBlocks() const {
  return std::max(load.kv_blocks_used + since_report.kv_blocks, own.kv_blocks);
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
