// How fast a rank computes prompts, as its steps show.
#pragma once

#include <cstdint>

namespace baleen::worker {

// The rate of a step is its prompt tokens over its seconds, rows of other kinds in the step being
// part of the circumstances. The rate of the rank is the mean of the rates of its steps, weighted
// by their prompt tokens: steps full of prompts count, those with a few tokens, whose time goes
// elsewhere, hardly do. A step's weight halves with every kHalfLifeTokens prompt tokens after it.
class PromptRate {
 public:
  static constexpr double kHalfLifeTokens = 8192;

  // A step that succeeded. Steps without prompt tokens or of no measurable time say nothing.
  void Add(std::uint32_t prompt_tokens, double seconds);

  // In tokens a second; 0 before the first step that counts.
  double tokens_per_second() const { return rate_; }

 private:
  double rate_ = 0.0;
};

}  // namespace baleen::worker
