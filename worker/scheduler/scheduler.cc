#include "worker/scheduler/scheduler.h"

#include <algorithm>

#include "observability/base/check.h"

namespace baleen::worker {
namespace {

std::uint32_t CountAdmissions(const Snapshot& snapshot, const SchedulerLimits& limits) {
  std::uint32_t blocks_free = snapshot.blocks_free;
  std::size_t running = snapshot.running.size();
  std::uint32_t admissions = 0;
  for (const WaitingSequence& next : snapshot.waiting) {
    if (running >= limits.sequences_max || next.blocks_needed > blocks_free) break;
    blocks_free -= next.blocks_needed;
    ++running;
    ++admissions;
  }
  return admissions;
}

}  // namespace

Plan PlanStep(const Snapshot& snapshot, const SchedulerLimits& limits) {
  BALEEN_CHECK(limits.sequences_max > 0 && limits.prefill_tokens_max > 0, "a step has room");
  Plan plan;
  plan.admissions = CountAdmissions(snapshot, limits);
  const auto running = static_cast<std::uint32_t>(snapshot.running.size());
  std::uint32_t budget = limits.prefill_tokens_max;
  for (std::uint32_t i = 0; i < running + plan.admissions; ++i) {
    if (i < running && snapshot.running[i].decoding) {
      plan.decode.push_back(i);
      continue;
    }
    const std::uint32_t left = i < running ? snapshot.running[i].prompt_tokens_left
                                           : snapshot.waiting[i - running].prompt_tokens_left;
    const std::uint32_t tokens = std::min(left, budget);
    if (tokens == 0) continue;
    plan.prefill.push_back({.sequence = i, .tokens = tokens});
    budget -= tokens;
  }
  return plan;
}

}  // namespace baleen::worker
