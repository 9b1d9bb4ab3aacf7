#include "router/policy/filter.h"

#include <algorithm>
#include <numeric>

#include "observability/base/check.h"

namespace baleen::router {

std::string_view ToString(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFits:
      return "fits";
    case Verdict::kAvoided:
      return "avoided";
    case Verdict::kDraining:
      return "draining";
    case Verdict::kForming:
      return "forming";
    case Verdict::kTooSmall:
      return "too_small";
    case Verdict::kSuspect:
      return "suspect";
    case Verdict::kNoSequence:
      return "no_sequence";
    case Verdict::kNoMemory:
      return "no_memory";
  }
  BALEEN_CHECK(false, "a verdict has one of eight values");
}

Verdict Judge(const WorkerView& worker, const Stage& stage, std::span<const WorkerId> avoid) {
  if (std::ranges::find(avoid, worker.id) != avoid.end()) return Verdict::kAvoided;
  if (worker.load.draining) return Verdict::kDraining;
  if (worker.load.forming) return Verdict::kForming;
  if (stage.work.kv_blocks > worker.info->kv_blocks_total) return Verdict::kTooSmall;
  if (worker.suspect) return Verdict::kSuspect;
  if (worker.Sequences() + stage.work.sequences > worker.info->sequences_max) {
    return Verdict::kNoSequence;
  }
  if (stage.reserves && worker.KvBlocks() + stage.work.kv_blocks > worker.info->kv_blocks_total) {
    return Verdict::kNoMemory;
  }
  return Verdict::kFits;
}

void Verdicts::Add(Verdict verdict, const WorkerView& worker) {
  ++counts[static_cast<std::size_t>(verdict)];
  const bool admits =
      verdict != Verdict::kAvoided && verdict != Verdict::kDraining && verdict != Verdict::kForming;
  if (admits) {
    kv_blocks_largest = std::max<std::uint64_t>(kv_blocks_largest, worker.info->kv_blocks_total);
  }
}

std::uint32_t Verdicts::considered() const {
  return std::accumulate(counts.begin(), counts.end(), std::uint32_t{0});
}

std::uint32_t Verdicts::admitting() const {
  return considered() - of(Verdict::kAvoided) - of(Verdict::kDraining) - of(Verdict::kForming);
}

}  // namespace baleen::router
