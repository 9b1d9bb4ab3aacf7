// What the router knows of its workers at one moment: plain values, the input of every routing
// decision.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace baleen::router {

// One attachment of a worker to this router. Counts up from 1, never reused: a worker that comes
// back has a new one.
struct WorkerId {
  std::uint64_t value = 0;
  auto operator<=>(const WorkerId&) const = default;
};

enum class Role : std::uint8_t { kPrefill, kDecode, kMixed };

std::string_view ToString(Role role);  // "prefill", "decode", "mixed"

// As baleen.v1.ModelIdentity.
struct ModelIdentity {
  std::string name;
  std::string digest;
  std::uint32_t context_tokens = 0;
  std::uint32_t vocabulary_size = 0;
  std::vector<std::int32_t> eos_token_ids;
  std::uint64_t kv_block_bytes = 0;
  std::string arithmetic;

  friend bool operator==(const ModelIdentity&, const ModelIdentity&) = default;
};

// What a worker said of itself when it attached; constant while it is attached. As baleen.v1.Hello.
struct WorkerInfo {
  std::string name;
  std::uint64_t incarnation = 0;
  Role role = Role::kMixed;
  std::uint32_t group = 0;
  std::uint32_t rank = 0;
  ModelIdentity model;
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t sequences_max = 0;
  std::uint32_t step_tokens_max = 0;
  std::string data_plane_address;
  std::string metrics_address;
  std::string model_directory;
};

// As baleen.v1.LoadReport: work of all routers on this worker, as it last said.
struct LoadReport {
  std::uint32_t sequences_running = 0;
  std::uint32_t sequences_waiting = 0;
  std::uint64_t prompt_tokens_pending = 0;
  std::uint64_t context_tokens_held = 0;
  std::uint32_t kv_blocks_used = 0;
  bool draining = false;
  bool forming = false;                // the worker's group is not complete
  std::uint32_t kv_blocks_cached = 0;  // free, with content that a prompt may find
  // Prompt tokens computed in a second, measured; 0: not known yet.
  float prompt_tokens_per_second = 0.0f;

  bool takes_requests() const { return !draining && !forming; }
};

// Work that this router has given to a worker.
struct Work {
  std::uint32_t sequences = 0;
  std::uint64_t prompt_tokens = 0;
  std::uint64_t context_tokens = 0;  // prompt and the most the reply can have
  std::uint64_t kv_blocks = 0;

  Work& operator+=(const Work& other);
  Work& operator-=(const Work& other);  // precondition: no member gets negative
  friend bool operator==(const Work&, const Work&) = default;
};

// What every routing decision reads of every rank: a copy out of its WorkerInfo, close at hand.
struct RankFacts {
  std::uint64_t model = 0;  // ModelKey of its name
  Role role = Role::kMixed;
  std::uint32_t kv_blocks_total = 0;
  std::uint32_t sequences_max = 0;
  std::uint32_t step_tokens_max = 0;
};

// 64 bits that stand for a model's name, in this process. A cluster has a handful of models.
std::uint64_t ModelKey(std::string_view name);

RankFacts FactsOf(const WorkerInfo& info);

// A worker and its load. The router's own knowledge bridges the time between two reports.
struct WorkerView {
  WorkerId id;
  std::uint32_t slot = 0;  // the rank in PrefixIndex
  RankFacts facts;         // of info
  std::shared_ptr<const WorkerInfo> info;
  LoadReport load;
  Work since_report;  // sent after `load` came in, so not in it
  Work own;           // everything of this router that has not ended there
  bool suspect = false;

  // Estimates of the load now: what was reported and sent since, and never less than what this
  // router itself has there.
  std::uint64_t Sequences() const {
    const std::uint64_t reported =
        std::uint64_t{load.sequences_running} + load.sequences_waiting + since_report.sequences;
    return std::max<std::uint64_t>(reported, own.sequences);
  }
  std::uint64_t PromptTokensPending() const {
    return load.prompt_tokens_pending + since_report.prompt_tokens;
  }
  std::uint64_t ContextTokens() const {
    return std::max(load.context_tokens_held + since_report.context_tokens, own.context_tokens);
  }
  std::uint64_t KvBlocks() const {
    return std::max(load.kv_blocks_used + since_report.kv_blocks, own.kv_blocks);
  }
};

// All attached workers, ascending by id. Treated as immutable: shared as shared_ptr<const
// ClusterView>, or passed by const reference.
struct ClusterView {
  std::vector<WorkerView> workers;

  const WorkerView* Find(WorkerId id) const;  // null: not attached
};

// KV blocks that hold `tokens` tokens.
std::uint64_t BlocksOf(std::uint64_t tokens);

}  // namespace baleen::router

template <>
struct std::hash<baleen::router::WorkerId> {
  std::size_t operator()(const baleen::router::WorkerId& id) const noexcept {
    return std::hash<std::uint64_t>{}(id.value);
  }
};
