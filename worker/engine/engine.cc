#include "worker/engine/engine.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "worker/engine/rules/handover.h"
#include "worker/engine/rules/reasons.h"

namespace baleen::worker {
namespace {

using contract::MakeStatus;
using contract::Reason;

StartLimits StartLimitsOf(const EngineOptions& options, const EngineParts& parts) {
  const ModelInfo& info = parts.model.info();
  return {.role = options.role,
          .has_data_plane = parts.transfer != nullptr,
          .has_grammars = parts.grammars != nullptr,
          .context_tokens = info.context_tokens,
          .vocabulary_size = info.vocabulary_size,
          .blocks_total = parts.blocks.total()};
}

}  // namespace

Engine::Engine(const EngineOptions& options, const EngineParts& parts)
    : options_(options),
      clock_(parts.clock),
      model_(parts.model),
      pool_(parts.blocks),
      cache_feed_(parts.cache_feed),
      grammars_(parts.grammars),
      transfer_(parts.transfer),
      inbox_(parts.inbox),
      sink_(parts.sink),
      metrics_(parts.metrics),
      start_limits_(StartLimitsOf(options, parts)),
      model_hash_(HashModel(parts.model.info())),
      reports_(parts.metrics),
      lockstep_(options.lockstep, parts.group, parts.inbox) {
  BALEEN_CHECK(pool_.block_bytes() == model_.info().kv_block_bytes,
               "the pool is cut for the model");
  metrics_.kv_blocks_total.Set(pool_.total());
}

Engine::~Engine() = default;

bool Engine::RunOnce() {
  bool worked = lockstep_.TakeFormed();
  worked |= TakeInbox();
  worked |= TakeTransferEvents();
  worked |= ExpireDeadlines();
  worked |= TakePrepared();
  TakeFromCache();
  Sweep();
  const Plan plan = MakePlan();
  Admit(plan.admissions);
  worked |= Compute(plan);
  Sweep();
  CheckBlocks();
  Publish();
  return worked;
}

void Engine::Run(std::stop_token stop) {
  const std::stop_callback wake(stop, [this] { inbox_.Wake(); });
  while (!stop.stop_requested()) {
    if (!RunOnce()) lockstep_.Sleep(IdleWait());
  }
  draining_ = true;
  TakeInbox();
  EndAll();
  lockstep_.Leave();
  Publish();
  const absl::Duration limit = clock_.Monotonic() + options_.stop_wait_max;
  while (!transfers_.empty() && clock_.Monotonic() < limit) {
    inbox_.WaitFor(options_.transfer_poll);
    TakeTransferEvents();
    Publish();
  }
}

absl::Duration Engine::IdleWait() const {
  absl::Duration wait = transfers_.empty() ? options_.idle_wait_max : options_.transfer_poll;
  const absl::Duration now = clock_.Monotonic();
  ForEach([&](const Sequence& sequence) { wait = std::min(wait, sequence.deadline - now); });
  return std::max(wait, absl::ZeroDuration());
}

LoadReport Engine::load() const {
  std::lock_guard lock(load_mutex_);
  return load_;
}

template <typename Visit>
void Engine::ForEach(Visit visit) const {
  for (const auto& sequence : running_) {
    if (sequence->phase != Phase::kEnded) visit(*sequence);
  }
  for (const auto& sequence : preparing_) {
    if (sequence->phase != Phase::kEnded) visit(*sequence);
  }
  for (const auto& sequence : waiting_) {
    if (sequence->phase != Phase::kEnded) visit(*sequence);
  }
}

// Commands ---------------------------------------------------------------------------------------

bool Engine::TakeInbox() {
  std::vector<Command> commands = inbox_.Take();
  for (Command& command : commands) {
    std::visit([this](auto& body) { Apply(std::move(body)); }, command);
  }
  return !commands.empty();
}

void Engine::Apply(StartCommand command) {
  const contract::RequestKey key = command.key;
  if (const auto found = by_id_.find(key.id); found != by_id_.end()) {
    Sequence& known = *found->second;
    if (known.start.key.attempt > key.attempt) {
      metrics_.stale_frames_total.Add();
      return;
    }
    if (known.start.key.attempt == key.attempt) {
      // One of the two sides has lost count; going on could mix up two replies.
      End(known, EndReason::kError,
          MakeStatus(Reason::kInvalidRequest, "this attempt was started twice on one worker"));
      return;
    }
    End(known, EndReason::kCancelled);
  }
  if (absl::Status status = AdmitStart(command); !status.ok()) {
    Refuse(command, std::move(status));
    return;
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->deadline = clock_.Monotonic() + command.time_left;
  sequence->blocks_needed = static_cast<std::uint32_t>(BlocksNeeded(command));
  sequence->start = std::move(command);
  sequence->cached_tokens_expected =
      pool_.Find(ReusableChain(*sequence)).cached * contract::kBlockTokens;
  by_id_[key.id] = sequence.get();
  if (const std::optional<GrammarSpec>& grammar = sequence->start.grammar) {
    sequence->grammar = grammars_->Begin(grammar->source, grammar->after_token);
    preparing_.push_back(std::move(sequence));
  } else {
    waiting_.push_back(std::move(sequence));
  }
}

absl::Status Engine::AdmitStart(const StartCommand& command) const {
  if (Draining()) {
    return MakeStatus(Reason::kDraining, "this worker takes no new requests");
  }
  if (absl::Status status = CheckStart(command, start_limits_); !status.ok()) return status;
  if (!lockstep_.formed()) {
    return MakeStatus(Reason::kWorkerLost, "the group of this worker is not complete");
  }
  if (QueueIsFull()) {
    return MakeStatus(Reason::kQueueFull, "as many requests wait on this worker as it allows: " +
                                              std::to_string(options_.waiting_max));
  }
  return absl::OkStatus();
}

// Those that have ended since the last sweep, by commands of the same batch, wait no more.
bool Engine::QueueIsFull() const {
  if (waiting_.size() + preparing_.size() < options_.waiting_max) return false;
  const auto waits = [](const auto& sequence) { return sequence->phase != Phase::kEnded; };
  const auto live = std::count_if(waiting_.begin(), waiting_.end(), waits) +
                    std::count_if(preparing_.begin(), preparing_.end(), waits);
  return static_cast<std::size_t>(live) >= options_.waiting_max;
}

void Engine::Refuse(const StartCommand& command, absl::Status status) {
  reports_.AddEnded(command.link,
                    {.key = command.key, .reason = EndReason::kError, .status = std::move(status)});
}

void Engine::Apply(const LinkLostCommand& command) {
  reports_.Forget(command.link);
  ForEach([&](Sequence& sequence) {
    if (sequence.start.link != command.link) return;
    Detach(sequence);
    reports_.CountLost();
  });
}

void Engine::Withdraw(const contract::RequestKey& key) {
  const auto found = by_id_.find(key.id);
  if (found == by_id_.end()) return;  // it has ended already
  if (found->second->start.key.attempt != key.attempt) {
    metrics_.stale_frames_total.Add();
    return;
  }
  End(*found->second, EndReason::kCancelled);
}

// A step -----------------------------------------------------------------------------------------

bool Engine::ExpireDeadlines() {
  const absl::Duration now = clock_.Monotonic();
  bool any = false;
  ForEach([&](Sequence& sequence) {
    if (sequence.deadline > now) return;
    any = true;
    End(sequence, EndReason::kError,
        MakeStatus(Reason::kDeadlineExceeded, "the request's deadline passed on the worker"));
  });
  return any;
}

Plan Engine::MakePlan() const {
  std::vector<RunningSequence> running;
  running.reserve(running_.size());
  for (const auto& sequence : running_) {
    const bool prefilling = sequence->phase == Phase::kPrefilling;
    running.push_back(
        {.decoding = sequence->phase == Phase::kDecoding,
         .prompt_tokens_left = prefilling ? sequence->prompt_tokens() - sequence->computed : 0});
  }
  // Only those for which there is a place: each is looked up in the cache.
  const std::size_t places = options_.scheduler.sequences_max - running_.size();
  std::vector<WaitingSequence> waiting;
  waiting.reserve(std::min(places, waiting_.size()));
  for (std::size_t i = 0; i < waiting_.size() && i < places; ++i) {
    const Sequence& sequence = *waiting_[i];
    const PrefixIndex::Match match = pool_.Find(ReusableChain(sequence));
    const bool computes = sequence.start.leg != Leg::kDecode;
    const std::uint32_t left = sequence.prompt_tokens() - match.cached * contract::kBlockTokens;
    waiting.push_back({.blocks_needed = sequence.blocks_needed - match.held,
                       .prompt_tokens_left = computes ? left : 0});
  }
  return PlanStep({.running = running, .waiting = waiting, .blocks_free = pool_.free_count()},
                  options_.scheduler);
}

void Engine::Admit(std::uint32_t admissions) {
  for (std::uint32_t i = 0; i < admissions; ++i) {
    const Sequence& next = *waiting_.front();
    std::optional<BlockList> blocks = pool_.Reserve(next.blocks_needed, ReusableChain(next));
    // Only if the block hashes of a Start contradict themselves: what the plan found under them is
    // not there, and the sequence waits until there is room without.
    if (!blocks.has_value()) return;
    AdmitNext(*std::move(blocks));
  }
}

void Engine::AdmitNext(BlockList blocks) {
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  Sequence& admitted = *running_.back();
  admitted.blocks = std::move(blocks);
  admitted.rules.emplace(admitted.start, model_.info());
  if (admitted.start.leg == Leg::kDecode) {
    admitted.phase = Phase::kReceiving;
    Expect(admitted);
  } else {
    admitted.phase = Phase::kPrefilling;
    const bool looks_up = !ReusableChain(admitted).empty();
    if (looks_up) metrics_.prefix_cache_queried_tokens_total.Add(admitted.prompt_tokens());
    SkipCached(admitted);
  }
}

bool Engine::Compute(const Plan& plan) {
  BuildBatch(plan);
  std::size_t tokens = 0;
  for (const SequenceStep& row : batch_) tokens += row.tokens.size();
  const absl::StatusOr<Lockstep::Outcome> opened = lockstep_.Open(
      {.rows = static_cast<std::uint32_t>(tokens),
       .leaves = Draining() && running_.empty() && preparing_.empty() && waiting_.empty()});
  if (!opened.ok()) {
    LoseGroup(opened.status());
    return true;
  }
  if (*opened == Lockstep::Outcome::kCompute) RunStep();
  return *opened != Lockstep::Outcome::kNotDue;
}

void Engine::RunStep() {
  sampled_.assign(rows_.size(), SampledToken{});
  const absl::Duration begun = clock_.Monotonic();
  const absl::Status status = model_.Step(batch_, {.base = pool_.base(), .blocks = pool_.total()},
                                          lockstep_.group_step(), sampled_);
  const double seconds = absl::ToDoubleSeconds(clock_.Monotonic() - begun);
  metrics_.step_seconds.Observe(seconds);
  metrics_.steps_total.Add();
  ++step_;
  if (status.ok()) {
    lockstep_.Finish();
    std::uint32_t prompt_tokens = 0;
    for (const Row& row : rows_) prompt_tokens += row.chunk;
    prompt_rate_.Add(prompt_tokens, seconds);
    for (std::size_t i = 0; i < rows_.size(); ++i) ApplyRow(rows_[i], sampled_[i]);
    return;
  }
  log::Error("step failed",
             {{"step", step_}, {"sequences", rows_.size()}, {"status", status.ToString()}});
  if (lockstep_.group_step().all_to_all != nullptr) {
    LoseGroup(status);
    return;
  }
  for (const Row& row : rows_) {
    End(*row.sequence, EndReason::kError, WithReason(status, Reason::kInternal));
  }
}

// Whatever has tokens to compute needs experts that are out of reach.
void Engine::LoseGroup(const absl::Status& why) {
  lockstep_.Break(why);
  ForEach([&](Sequence& sequence) {
    if (sequence.phase == Phase::kHandingOver) return;
    End(sequence, EndReason::kError, MakeStatus(Reason::kWorkerLost, std::string(why.message())));
  });
}

// Ends -------------------------------------------------------------------------------------------

void Engine::End(Sequence& sequence, EndReason reason, absl::Status status) {
  Detach(sequence);
  reports_.AddEnded(sequence.start.link, {.key = sequence.start.key,
                                          .reason = reason,
                                          .tokens = sequence.emitted,
                                          .status = std::move(status),
                                          .kv_transfer_bytes = sequence.transfer_bytes,
                                          .cached_tokens = sequence.cached_tokens});
}

// Takes a sequence out of everything, at once, except for memory that the data plane may still
// touch.
void Engine::Detach(Sequence& sequence) {
  BALEEN_CHECK(sequence.phase != Phase::kEnded, "a request ends once");
  sequence.phase = Phase::kEnded;
  by_id_.erase(sequence.start.key.id);
  if (sequence.transfer_open) {
    OpenTransfer& open = transfers_.at(sequence.start.transfer);
    open.sequence = nullptr;
    open.blocks = std::move(sequence.blocks);
    transfer_->Cancel(sequence.start.transfer);
  }
  sequence.blocks.Release();
}

void Engine::Sweep() {
  const auto ended = [](const auto& sequence) { return sequence->phase == Phase::kEnded; };
  std::erase_if(running_, ended);
  std::erase_if(preparing_, ended);
  std::erase_if(waiting_, ended);
}

void Engine::EndAll() {
  ForEach([this](Sequence& sequence) {
    End(sequence, EndReason::kError, MakeStatus(Reason::kDraining, "the worker is shutting down"));
  });
  Sweep();
}

LoadReport Engine::MeasureLoad() const {
  LoadReport load{
      .kv_blocks_used = pool_.used(), .draining = Draining(), .forming = !lockstep_.formed()};
  ForEach([&](const Sequence& sequence) {
    const Phase phase = sequence.phase;
    const bool waits = phase == Phase::kWaiting || phase == Phase::kReceiving;
    (waits ? load.sequences_waiting : load.sequences_running) += 1;
    if (sequence.start.leg != Leg::kDecode && waits) {
      load.prompt_tokens_pending += sequence.prompt_tokens() - sequence.cached_tokens_expected;
    }
    if (phase == Phase::kPrefilling) {
      load.prompt_tokens_pending += sequence.prompt_tokens() - sequence.computed;
    }
    if (phase == Phase::kDecoding) load.context_tokens_held += sequence.computed;
  });
  return load;
}

void Engine::Publish() {
  may_leave_ = lockstep_.may_leave();
  LoadReport load = MeasureLoad();
  PublishCache(load);
  metrics_.sequences_running.Set(load.sequences_running);
  metrics_.sequences_waiting.Set(load.sequences_waiting);
  metrics_.kv_blocks_used.Set(load.kv_blocks_used);
  {
    std::lock_guard lock(load_mutex_);
    load_ = load;
  }
  reports_.Deliver(step_, load, sink_);
}

void Engine::CheckBlocks() const {
  std::size_t held = 0;
  for (const auto& sequence : running_) held += sequence->blocks.size();
  for (const auto& [id, open] : transfers_) held += open.blocks.size();
  BALEEN_CHECK(held == pool_.references(),
               "every block in use is held by a sequence or a transfer");
}

}  // namespace baleen::worker
