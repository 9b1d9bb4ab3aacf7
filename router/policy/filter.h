// Which ranks can take one part of a request now, and why the others cannot.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "router/policy/cluster_view.h"

namespace baleen::router {

// One part of a plan: which role does it, and what it takes.
struct Stage {
  Role role = Role::kMixed;
  Work work;
  // Whether the blocks must be free now. A rank that only computes prompts queues them before it
  // takes blocks.
  bool reserves = true;
};

// What the filter says of a rank of the right role and model, in the order in which it asks.
enum class Verdict : std::uint8_t {
  kFits,
  kAvoided,     // it has failed this request
  kDraining,    // or its group does
  kForming,     // its group is not complete
  kTooSmall,    // its whole KV memory does not hold the request
  kSuspect,     // silent for a lease
  kNoSequence,  // all sequences are taken
  kNoMemory,    // too few KV blocks are free
};
inline constexpr std::size_t kVerdicts = 8;

std::string_view ToString(Verdict verdict);  // "fits", "avoided", ...

inline Verdict Judge(const WorkerView& worker, const Stage& stage,
                     std::span<const WorkerId> avoid) {
  if (std::ranges::find(avoid, worker.id) != avoid.end()) return Verdict::kAvoided;
  if (worker.load.draining) return Verdict::kDraining;
  if (worker.load.forming) return Verdict::kForming;
  if (stage.work.kv_blocks > worker.facts.kv_blocks_total) return Verdict::kTooSmall;
  if (worker.suspect) return Verdict::kSuspect;
  if (worker.Sequences() + stage.work.sequences > worker.facts.sequences_max) {
    return Verdict::kNoSequence;
  }
  if (stage.reserves && worker.KvBlocks() + stage.work.kv_blocks > worker.facts.kv_blocks_total) {
    return Verdict::kNoMemory;
  }
  return Verdict::kFits;
}

// What the verdicts on all ranks of a stage were.
struct Verdicts {
  std::array<std::uint32_t, kVerdicts> counts = {};
  std::uint64_t kv_blocks_largest = 0;  // among those that take requests

  void Add(Verdict verdict, const WorkerView& worker) {
    ++counts[static_cast<std::size_t>(verdict)];
    const bool admits = verdict != Verdict::kAvoided && verdict != Verdict::kDraining &&
                        verdict != Verdict::kForming;
    if (admits) {
      kv_blocks_largest = std::max<std::uint64_t>(kv_blocks_largest, worker.facts.kv_blocks_total);
    }
  }
  std::uint32_t of(Verdict verdict) const { return counts[static_cast<std::size_t>(verdict)]; }
  std::uint32_t considered() const;
  // Take requests, though perhaps not this one, or not now.
  std::uint32_t admitting() const;
};

}  // namespace baleen::router
