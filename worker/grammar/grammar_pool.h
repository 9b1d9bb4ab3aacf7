// Grammars of the sequences of a rank: compiled, and turned into masks, on threads of their own
// while the engine computes.
//
// The mask of a token is begun as soon as the token before it is known and is awaited only where
// the logits are turned into a token: all of the forward pass is time for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "text/grammar/grammar.h"
#include "text/grammar/grammar_cache.h"
#include "worker/grammar/reply_grammar.h"
#include "worker/model/token_mask.h"

namespace baleen::worker {

struct GrammarPoolOptions {
  std::string model_directory;
  text::VocabularyOptions vocabulary;
  text::GrammarLimits limits;
  text::GrammarCacheLimits cache;
  std::size_t threads = 2;
  // How long a token waits for its mask, and a sequence for its grammar: the sequence fails then.
  absl::Duration wait_max = absl::Seconds(2);
  // Called, on any thread, when a grammar has been compiled or refused.
  std::function<void()> wake;
};

class GrammarPool;

// One sequence's way through its grammar. For the engine's thread; gone sequences may leave work
// behind, which the pool drops.
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
  bool begun_ = false;
};

class GrammarPool final : public Grammars {
 public:
  // Loads the model's vocabulary in the background.
  explicit GrammarPool(GrammarPoolOptions options);
  ~GrammarPool() override;
  GrammarPool(const GrammarPool&) = delete;
  GrammarPool& operator=(const GrammarPool&) = delete;

  std::unique_ptr<ReplyGrammar> Begin(text::GrammarSource source,
                                      std::optional<std::int32_t> after_token) override;

 private:
  friend class SequenceGrammar;
  using Work = std::function<void()>;

  void Submit(Work work);
  void Run();
  void LoadVocabulary();

  const GrammarPoolOptions options_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_:
  std::deque<Work> work_;
  bool stopping_ = false;
  std::unique_ptr<text::GrammarCache> cache_;  // null until the vocabulary is there
  absl::Status load_status_;

  std::vector<std::jthread> threads_;
};

}  // namespace baleen::worker
