// What the next step computes: a pure function from a snapshot of the queues to a plan. The engine
// carries the plan out.
//
// The rules, in order:
//
//  1. Admission is first come, first served. The head of the queue is admitted when all blocks it
//     will ever need are free and a place among the running sequences is; while it waits, everyone
//     behind it waits too, so a large request is not starved by small ones. Blocks are reserved for
//     the worst case at admission, so that nothing that runs is ever evicted.
//  2. Every decoding sequence gets one token in every step.
//  3. Prompts share `prefill_tokens_max` tokens a step, oldest first, in chunks.
//
// Decode rows do not eat from the prefill budget and the budget bounds how long a step can keep
// decode rows waiting: on a mixed rank neither starves the other. A prefill rank simply never has
// decoding sequences, a decode rank never has prompts to compute: one rule for all roles.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace baleen::worker {

struct SchedulerLimits {
  std::uint32_t sequences_max = 64;        // that hold blocks; also the rows of a step
  std::uint32_t prefill_tokens_max = 512;  // prompt tokens a step, at least 1
};

// What a running sequence wants of the next step.
struct RunningSequence {
  bool decoding = false;  // wants its next token
  std::uint32_t prompt_tokens_left =
      0;  // to compute here; 0 while decoding, receiving or handing over
};

struct WaitingSequence {
  // Free ones, for the worst case: those that it shares with running sequences are none.
  std::uint32_t blocks_needed = 0;
  // To compute here, after what the cache has of the prompt; 0 for a decode leg.
  std::uint32_t prompt_tokens_left = 0;
};

struct Snapshot {
  std::span<const RunningSequence> running;  // oldest first
  std::span<const WaitingSequence> waiting;  // oldest first
  std::uint32_t blocks_free = 0;             // cached blocks that nobody holds are free
};

struct PrefillChunk {
  std::uint32_t sequence = 0;
  std::uint32_t tokens = 0;  // at least 1
};

// Indexes count the running sequences, then the admitted ones in the order of the queue.
struct Plan {
  std::uint32_t admissions = 0;  // the first so many of the waiting sequences start to run
  std::vector<std::uint32_t> decode;
  std::vector<PrefillChunk> prefill;
};

Plan PlanStep(const Snapshot& snapshot, const SchedulerLimits& limits);

}  // namespace baleen::worker
