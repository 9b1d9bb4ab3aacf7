// Grammars as the engine sees them. Real: GrammarPool. Twin: tests/fakes/fake_grammars.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "text/grammar/grammar.h"
#include "worker/model/token_mask.h"

namespace baleen::worker {

// One sequence's way through its grammar. For the engine's thread.
class ReplyGrammar {
 public:
  virtual ~ReplyGrammar() = default;

  // Whether the grammar is compiled; an error if it is refused or took too long. Until it is there
  // (false), nothing may be sampled.
  virtual absl::StatusOr<bool> Prepared() const = 0;

  // The token that the sequence has sampled, or received as its first. Begins the next mask.
  virtual void Accept(std::int32_t token) = 0;

  // What SequenceStep::mask is for the next token; null while every token is allowed because the
  // grammar has not begun.
  virtual TokenMask* mask() = 0;
};

class Grammars {
 public:
  virtual ~Grammars() = default;
  // Begins to compile. `after_token`: the grammar begins after the first token of this id. Outlives
  // what it gives.
  virtual std::unique_ptr<ReplyGrammar> Begin(text::GrammarSource source,
                                              std::optional<std::int32_t> after_token) = 0;
};

}  // namespace baleen::worker
