#include "worker/grammar/grammar_pool.h"

#include <atomic>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "fmt/format.h"
#include "observability/base/status_macros.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

using contract::MakeStatus;
using contract::Reason;

absl::Status WithReason(const absl::Status& status) {
  if (status.ok() || contract::ReasonOf(status).has_value()) return status;
  return MakeStatus(Reason::kInvalidRequest, std::string(status.message()));
}

absl::Status TooLate(std::string_view what, absl::Duration limit) {
  return MakeStatus(Reason::kDeadlineExceeded, fmt::format("{} took longer than {} ms", what,
                                                           absl::ToInt64Milliseconds(limit)));
}

}  // namespace

struct SequenceGrammar::State {
  enum class Stage : std::uint8_t {
    kQueued,  // for a thread
    kBusy,    // a thread is at it
    kDone,    // until the next token
  };

  const text::GrammarSource source;
  std::atomic<bool> prepared = false;
  std::atomic<bool> abandoned = false;

  std::mutex mutex;
  std::condition_variable changed;
  // Guarded by mutex:
  Stage stage = Stage::kQueued;
  std::vector<std::int32_t> tokens;  // accepted, not consumed yet
  absl::Status status;               // an error is for good

  // Of the thread that has set kBusy; of the engine's when done:
  std::unique_ptr<TokenRules> rules;
  std::vector<std::uint32_t> mask;

  explicit State(text::GrammarSource source_of_start) : source(std::move(source_of_start)) {}
};

SequenceGrammar::SequenceGrammar(GrammarPool& pool, std::shared_ptr<State> state,
                                 std::optional<std::int32_t> after_token)
    : pool_(pool),
      state_(std::move(state)),
      after_token_(after_token),
      prepared_by_(pool.clock_.Monotonic() + pool.options_.prepare_max),
      begun_(!after_token.has_value()) {}

SequenceGrammar::~SequenceGrammar() { state_->abandoned = true; }

absl::StatusOr<bool> SequenceGrammar::Prepared() const {
  if (state_->prepared) {
    std::lock_guard lock(state_->mutex);
    BALEEN_RETURN_IF_ERROR(state_->status);
    return true;
  }
  if (pool_.clock_.Monotonic() >= prepared_by_) {
    return TooLate("compiling the grammar", pool_.options_.prepare_max);
  }
  return false;
}

void SequenceGrammar::Accept(std::int32_t token) {
  if (!begun_) {
    begun_ = token == after_token_;
    return;
  }
  {
    std::lock_guard lock(state_->mutex);
    state_->tokens.push_back(token);
    if (state_->stage != State::Stage::kDone) return;  // whoever is at it sees the token
    state_->stage = State::Stage::kQueued;
  }
  pool_.Submit(pool_.mask_queue_, state_);
}

absl::StatusOr<std::span<const std::uint32_t>> SequenceGrammar::Await() {
  pool_.Work(*state_);
  std::unique_lock lock(state_->mutex);
  const auto done = [this] { return state_->stage == State::Stage::kDone; };
  if (!state_->changed.wait_for(lock, absl::ToChronoNanoseconds(pool_.options_.mask_wait_max),
                                done)) {
    return TooLate("a mask of the grammar", pool_.options_.mask_wait_max);
  }
  BALEEN_RETURN_IF_ERROR(state_->status);
  return std::span<const std::uint32_t>(state_->mask);
}

GrammarPool::GrammarPool(const GrammarPoolOptions& options, const Clock& clock,
                         GrammarCompiler& compiler)
    : options_(options), clock_(clock), compiler_(compiler) {
  Start(compile_queue_, options_.compile_threads);
  Start(mask_queue_, options_.mask_threads);
}

GrammarPool::~GrammarPool() {
  for (Queue* queue : {&compile_queue_, &mask_queue_}) {
    for (std::jthread& thread : queue->threads) thread.request_stop();
  }
}

std::unique_ptr<ReplyGrammar> GrammarPool::Begin(text::GrammarSource source,
                                                 std::optional<std::int32_t> after_token) {
  auto state = std::make_shared<State>(std::move(source));
  std::unique_ptr<SequenceGrammar> grammar(new SequenceGrammar(*this, state, after_token));
  Submit(compile_queue_, std::move(state));
  return grammar;
}

void GrammarPool::Start(Queue& queue, std::size_t threads) {
  for (std::size_t i = 0; i < threads; ++i) {
    queue.threads.emplace_back([this, &queue](const std::stop_token& stop) { Run(queue, stop); });
  }
}

void GrammarPool::Submit(Queue& queue, std::shared_ptr<State> state) {
  {
    std::lock_guard lock(queue.mutex);
    queue.states.push_back(std::move(state));
  }
  queue.changed.notify_one();
}

void GrammarPool::Run(Queue& queue, const std::stop_token& stop) {
  while (true) {
    std::shared_ptr<State> state;
    {
      std::unique_lock lock(queue.mutex);
      if (!queue.changed.wait(lock, stop, [&queue] { return !queue.states.empty(); })) return;
      if (stop.stop_requested()) return;
      state = std::move(queue.states.front());
      queue.states.pop_front();
    }
    if (!state->abandoned) Work(*state);
  }
}

void GrammarPool::Work(State& state) {
  std::unique_lock lock(state.mutex);
  if (state.stage != State::Stage::kQueued) return;
  state.stage = State::Stage::kBusy;
  absl::Status status = state.status;
  bool stale = true;  // tokens have come since the mask was begun
  while (status.ok() && stale) {
    const std::vector<std::int32_t> tokens = std::exchange(state.tokens, {});
    lock.unlock();
    if (state.rules == nullptr) status = Prepare(state);
    for (const std::int32_t token : tokens) {
      if (status.ok()) status = state.rules->Consume(token);
    }
    if (status.ok()) status = state.rules->Mask(state.mask);
    lock.lock();
    stale = !state.tokens.empty();
  }
  state.status = WithReason(status);
  state.stage = State::Stage::kDone;
  const bool first = !state.prepared.exchange(true);
  state.changed.notify_all();
  lock.unlock();
  if (first) options_.wake();
}

absl::Status GrammarPool::Prepare(State& state) {
  BALEEN_ASSIGN_OR_RETURN(state.rules, compiler_.Compile(state.source));
  state.mask.resize(compiler_.mask_words());
  return absl::OkStatus();
}

}  // namespace baleen::worker
