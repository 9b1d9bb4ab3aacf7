// Where a constrained sequence gets the tokens that may come next. Computed beside the step, by
// whoever implements it; the model asks when the logits are there, as late as possible.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace baleen::worker {

class TokenMask {
 public:
  virtual ~TokenMask() = default;
  // The mask of the sequence's next token: token i is allowed if bit i mod 32 of word i / 32 is
  // set; tokens beyond the last word are not allowed. Valid until the sequence has its token. Waits
  // for a limited time. An error ends the sequence, and nothing else.
  virtual absl::StatusOr<std::span<const std::uint32_t>> Await() = 0;
};

}  // namespace baleen::worker
