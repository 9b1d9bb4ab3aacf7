// The seam between masks beside the step (grammar_pool.h) and what computes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/grammar/grammar.h"

namespace baleen::worker {

// Which tokens may come next in one reply: a function of the grammar and of the tokens so far. One
// thread at a time.
class TokenRules {
 public:
  virtual ~TokenRules() = default;
  // Sets the bits of the tokens that may come next (TokenMask::Await); at least one.
  virtual absl::Status Mask(std::span<std::uint32_t> out) = 0;
  // An error if the token may not come next.
  virtual absl::Status Consume(std::int32_t token) = 0;
};

// Real: ModelGrammars. Any thread, several at a time.
class GrammarCompiler {
 public:
  virtual ~GrammarCompiler() = default;
  // May take a second. Statuses without a contract::Reason are the request's fault.
  virtual absl::StatusOr<std::unique_ptr<TokenRules>> Compile(
      const text::GrammarSource& source) = 0;
  // Of a mask: a bit for each logit of the model.
  virtual std::size_t mask_words() const = 0;
};

}  // namespace baleen::worker
