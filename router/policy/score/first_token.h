// When a rank would have the first token of a prompt. Reads: prompt tokens that wait there, the
// rate that it has measured, what of the prompt it has.
#pragma once

#include <cstdint>

#include "router/policy/cluster_view.h"

namespace baleen::router {

// Of a rank that has not measured its rate, while no other has either: only the order of ranks
// matters then.
inline constexpr double kPromptTokensPerSecondNominal = 10'000.0;

// Seconds until the rank has computed what waits there and then this prompt.
// `tokens_per_second`: of ranks that have not measured theirs.
inline double FirstTokenSeconds(const WorkerView& worker, std::uint32_t prompt_tokens_new,
                                double tokens_per_second) {
  const double measured = worker.load.prompt_tokens_per_second;
  return static_cast<double>(worker.PromptTokensPending() + prompt_tokens_new) /
         (measured > 0.0 ? measured : tokens_per_second);
}

// In (0, 1]: 1/2 when the first token comes after the time of one full step of prompt tokens,
// falling towards 0.
inline double FirstTokenScore(double first_token_s, double step_s) {
  return step_s / (step_s + first_token_s);
}

}  // namespace baleen::router
