// Grammars of the sequences of a rank: compiled, and turned into masks, on threads of their own
// while the engine computes.
//
// The mask of a token is begun as soon as the token before it is known and is awaited only where
// the logits are turned into a token: all of the forward pass is time for it. The engine never
// waits for a thread that has not begun: it then computes the mask itself.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "worker/grammar/grammar_compiler.h"
#include "worker/grammar/grammar_spec.h"
#include "worker/model/token_mask.h"

namespace baleen::worker {

struct GrammarPoolOptions {
  // Compiling takes milliseconds, of hostile grammars a second; masks never wait for it.
  std::size_t compile_threads = 2;
  std::size_t mask_threads = 1;
  // How long a sequence waits for its grammar to be compiled, and a step for a mask that is being
  // computed. Then the sequence fails.
  absl::Duration prepare_max = absl::Seconds(10);
  absl::Duration mask_wait_max = absl::Seconds(2);
  // Called, on any thread, when a grammar has been compiled or refused.
  std::function<void()> wake = [] {};
};

class GrammarPool;

// One sequence's way through its grammar. For the engine's thread. Work that is under way when it
// goes is finished and thrown away.
class SequenceGrammar final : public TokenMask {
 public:
  ~SequenceGrammar() override;
  SequenceGrammar(const SequenceGrammar&) = delete;
  SequenceGrammar& operator=(const SequenceGrammar&) = delete;

  // Whether the grammar is compiled; an error if it is refused or has taken too long. Until then
  // nothing may be sampled.
  absl::StatusOr<bool> Prepared() const;

  // The token that the sequence has sampled, or received as its first. Begins the next mask.
  void Accept(std::int32_t token);

  // What SequenceStep::mask is for the next token: this, or null while every token is allowed
  // because the grammar has not begun.
  TokenMask* mask() { return begun_ ? this : nullptr; }

  absl::StatusOr<std::span<const std::uint32_t>> Await() override;

 private:
  friend class GrammarPool;
  struct State;
  SequenceGrammar(GrammarPool& pool, std::shared_ptr<State> state);

  GrammarPool& pool_;
  const std::shared_ptr<State> state_;
  const absl::Duration prepared_by_;
  bool begun_;
};

class GrammarPool {
 public:
  // Both borrowed.
  GrammarPool(const GrammarPoolOptions& options, const Clock& clock, GrammarCompiler& compiler);
  ~GrammarPool();
  GrammarPool(const GrammarPool&) = delete;
  GrammarPool& operator=(const GrammarPool&) = delete;

  // Begins to compile. The pool outlives what it gives.
  std::unique_ptr<SequenceGrammar> Begin(GrammarSpec spec);

 private:
  friend class SequenceGrammar;
  using State = SequenceGrammar::State;

  // Sequences that have something to do, oldest first; each is in at most one of the two.
  struct Queue {
    std::mutex mutex;
    std::condition_variable_any changed;
    std::deque<std::shared_ptr<State>> states;  // guarded by mutex
    std::vector<std::jthread> threads;
  };

  void Start(Queue& queue, std::size_t threads);
  void Submit(Queue& queue, std::shared_ptr<State> state);
  void Run(Queue& queue, const std::stop_token& stop);
  // Does what there is to do for a sequence, unless another thread does or has done it.
  void Work(State& state);
  absl::Status Prepare(State& state);

  const GrammarPoolOptions options_;
  const Clock& clock_;
  GrammarCompiler& compiler_;
  Queue compile_queue_;
  Queue mask_queue_;
};

}  // namespace baleen::worker
