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
#include "text/grammar/grammar.h"
#include "worker/grammar/grammar_compiler.h"
#include "worker/grammar/reply_grammar.h"
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

// Work that is under way when a sequence goes is finished and thrown away.
class SequenceGrammar final : public ReplyGrammar, public TokenMask {
 public:
  ~SequenceGrammar() override;
  SequenceGrammar(const SequenceGrammar&) = delete;
  SequenceGrammar& operator=(const SequenceGrammar&) = delete;

  absl::StatusOr<bool> Prepared() const override;
  void Accept(std::int32_t token) override;
  TokenMask* mask() override { return begun_ ? this : nullptr; }

  absl::StatusOr<std::span<const std::uint32_t>> Await() override;

 private:
  friend class GrammarPool;
  struct State;
  SequenceGrammar(GrammarPool& pool, std::shared_ptr<State> state,
                  std::optional<std::int32_t> after_token);

  GrammarPool& pool_;
  const std::shared_ptr<State> state_;
  const std::optional<std::int32_t> after_token_;
  const absl::Duration prepared_by_;
  bool begun_;
};

class GrammarPool final : public Grammars {
 public:
  // Both borrowed.
  GrammarPool(const GrammarPoolOptions& options, const Clock& clock, GrammarCompiler& compiler);
  ~GrammarPool() override;
  GrammarPool(const GrammarPool&) = delete;
  GrammarPool& operator=(const GrammarPool&) = delete;

  std::unique_ptr<ReplyGrammar> Begin(text::GrammarSource source,
                                      std::optional<std::int32_t> after_token) override;

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
