// What the reply must look like, as a Start says it (baleen.v1.Grammar).
#pragma once

#include <cstdint>
#include <optional>

#include "text/grammar/grammar.h"

namespace baleen::worker {

struct GrammarSpec {
  text::GrammarSource source;
  // It begins after the first token of this id; without one, with the reply's first token.
  std::optional<std::int32_t> after_token;

  friend bool operator==(const GrammarSpec&, const GrammarSpec&) = default;
};

}  // namespace baleen::worker
