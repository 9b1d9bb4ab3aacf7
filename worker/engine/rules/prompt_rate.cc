#include "worker/engine/rules/prompt_rate.h"

#include <cmath>

namespace baleen::worker {

void PromptRate::Add(std::uint32_t prompt_tokens, double seconds) {
  if (prompt_tokens == 0 || seconds <= 0.0) return;
  const double rate = prompt_tokens / seconds;
  const double share = rate_ == 0.0 ? 1.0 : 1.0 - std::exp2(-(prompt_tokens / kHalfLifeTokens));
  rate_ += share * (rate - rate_);
}

}  // namespace baleen::worker
