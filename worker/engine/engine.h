// The engine: one thread that owns all sequences and KV blocks of a rank and computes one step
// after the other.
//
// A step: take the inbox, take the data plane's events, end what is past its deadline, plan
// (worker/scheduler), open the step with the group if there is one (Lockstep), compute the batch
// (Model), report. All other waiting happens between steps, on the inbox.
//
// What it guarantees:
//
//  - Each Start gets exactly one Ended, after all its tokens, unless its link is lost first. (A
//    Start of an older attempt than one that is here is dropped and counted. A Release is answered
//    by that one Ended too.)
//  - A cancelled, released, lost or expired request gives its blocks back before the next step
//    computes. Blocks of a transfer that is still open are kept until its final event.
//  - A failed Model::Step fails the sequences of that step and nothing else; a numeric fault fails
//    its own sequence. In a group a failed step is the end of the epoch: all sequences end with
//    Reason::kWorkerLost, which names the peer and the phase, and new ones are refused until the
//    group has formed again.
//  - Every queue is bounded; what does not fit is refused with Reason::kQueueFull.
//  - A block of a prompt is cached once the step that completed it has succeeded, and never written
//    again; what follows from it is the same bits as if it had been computed here and now. When the
//    logits of a sequence are no numbers, its blocks leave the cache.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <unordered_map>
#include <vector>

#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "worker/cache/block_pool.h"
#include "worker/cache/cache_feed.h"
#include "worker/engine/inbox.h"
#include "worker/engine/lockstep/lockstep.h"
#include "worker/engine/messages.h"
#include "worker/engine/reports.h"
#include "worker/engine/rules/prompt_rate.h"
#include "worker/engine/rules/role.h"
#include "worker/engine/rules/start_check.h"
#include "worker/engine/sequence.h"
#include "worker/grammar/reply_grammar.h"
#include "worker/kv_transfer/kv_transfer.h"
#include "worker/model/model.h"
#include "worker/scheduler/scheduler.h"

namespace baleen::worker {

struct EngineOptions {
  Role role = Role::kMixed;
  SchedulerLimits scheduler;  // the model was made for at least StepLimitsFor(scheduler)
  std::size_t waiting_max = 256;
  // Keep the blocks of prompts whose Start names them, and look prompts up among those kept.
  bool prefix_cache = true;
  // The longest sleep between two looks at the data plane while transfers are open, if nobody wakes
  // the inbox earlier.
  absl::Duration transfer_poll = absl::Milliseconds(5);
  absl::Duration idle_wait_max = absl::Milliseconds(250);
  // How long Run waits at its end for open transfers to give their memory back.
  absl::Duration stop_wait_max = absl::Seconds(1);
  LockstepOptions lockstep;
};

// A step computes at most one row for each running sequence: a token of a decoding one, a chunk of
// a prompt.
constexpr StepLimits StepLimitsFor(const SchedulerLimits& limits) {
  return {.tokens_max = limits.prefill_tokens_max + limits.sequences_max,
          .sequences_max = limits.sequences_max};
}

// Borrowed; all outlive the engine. `transfer` is null on a rank without a data plane.
struct EngineParts {
  const Clock& clock;
  Model& model;
  BlockPool& blocks;
  KvTransfer* transfer = nullptr;
  Group* group = nullptr;  // null on a rank that holds all experts
  Inbox& inbox;
  OutputSink& sink;
  const metrics::WorkerMetrics& metrics;
  CacheFeed* cache_feed = nullptr;  // that of `blocks`: published after each step
  Grammars* grammars = nullptr;     // null: requests with one are refused
};

class Engine {
 public:
  Engine(const EngineOptions& options, const EngineParts& parts);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // One step. True when it did something, so that there may be more to do at once; false when only
  // a new command, an event of the data plane or time can bring work.
  bool RunOnce();

  // Steps until `stop` is requested, then ends what is left with Reason::kDraining. On the thread
  // that calls RunOnce.
  void Run(std::stop_token stop);

  // How long the engine may sleep now. On the engine's thread.
  absl::Duration IdleWait() const;

  // Any thread: the load after the latest step.
  LoadReport load() const;

  // Any thread: whether nobody of the group needs this rank any more.
  bool may_leave() const { return may_leave_; }

 private:
  // A transfer that was begun here and has had no final event.
  struct OpenTransfer {
    Sequence* sequence = nullptr;  // null once the request has ended
    BlockList blocks;              // kept for the data plane after that
    absl::Duration begun;
  };
  // Row i of a batch: `chunk` prompt tokens, or one generated token when 0.
  struct Row {
    Sequence* sequence = nullptr;
    std::uint32_t chunk = 0;
  };

  // Commands.
  bool TakeInbox();
  void Apply(StartCommand command);
  void Apply(const CancelCommand& command) { Withdraw(command.key); }
  void Apply(const ReleaseCommand& command) { Withdraw(command.key); }
  void Apply(const DrainCommand& command) { draining_ = true; }
  void Apply(const LinkLostCommand& command);
  void Refuse(const StartCommand& command, absl::Status status);
  void Withdraw(const contract::RequestKey& key);
  absl::Status AdmitStart(const StartCommand& command) const;
  bool QueueIsFull() const;
  // This rank drains, or its group does because a rank of it has drained.
  bool Draining() const { return draining_ || lockstep_.any_leaves(); }

  // The data plane.
  bool TakeTransferEvents();
  void Finish(const TransferEvent& event);
  void Continue(Sequence& sequence, const TransferEvent& event);
  void Expect(Sequence& sequence);
  void Offer(Sequence& sequence, std::uint32_t blocks_ready);
  void Close(Sequence& sequence);
  void Send(Sequence& sequence, SendPart part);
  void Begin(Sequence& sequence);

  // A step.
  bool ExpireDeadlines();
  Plan MakePlan() const;
  void Admit(std::uint32_t admissions);
  void AdmitNext(BlockList blocks);
  bool Compute(const Plan& plan);
  void RunStep();
  void LoseGroup(const absl::Status& why);
  bool TakePrepared();
  void BuildBatch(const Plan& plan);
  void AskForToken(Sequence& sequence, SequenceStep& step) const;
  void AskForFollowers(const Sequence& sequence, SequenceStep& step) const;
  void ReportFollowers(Sequence& sequence, std::uint32_t first,
                       std::vector<TokenLogprobs>& followers);
  void ApplyRow(const Row& row, SampledToken& sampled);
  void AcceptToken(Sequence& sequence, SampledToken& sampled);
  void EndFaulty(Sequence& sequence, const absl::Status& status);
  void EndIfComplete(Sequence& sequence, std::int32_t token);

  // The prefix cache.
  BlockChain ReusableChain(const Sequence& sequence) const;
  void TakeFromCache();
  void SkipCached(Sequence& sequence);
  void KeepComputed(Sequence& sequence);
  void PublishCache(LoadReport& load);

  // Ends.
  void End(Sequence& sequence, EndReason reason, absl::Status status = absl::OkStatus());
  void Detach(Sequence& sequence);
  void Sweep();
  void EndAll();
  void Publish();
  LoadReport MeasureLoad() const;
  void CheckBlocks() const;

  template <typename Visit>
  void ForEach(Visit visit) const;

  const EngineOptions options_;
  const Clock& clock_;
  Model& model_;
  BlockPool& pool_;
  CacheFeed* const cache_feed_;
  Grammars* const grammars_;
  KvTransfer* const transfer_;
  Inbox& inbox_;
  OutputSink& sink_;
  metrics::WorkerMetrics metrics_;
  const StartLimits start_limits_;
  const std::uint64_t model_hash_;

  bool draining_ = false;
  std::uint64_t step_ = 0;                           // steps that computed something
  std::deque<std::unique_ptr<Sequence>> preparing_;  // wait for their grammars; oldest first
  std::deque<std::unique_ptr<Sequence>> waiting_;    // oldest first
  std::vector<std::unique_ptr<Sequence>> running_;   // hold blocks; oldest first
  std::unordered_map<contract::RequestId, Sequence*> by_id_;  // that have not ended
  std::unordered_map<contract::TransferId, OpenTransfer> transfers_;
  PromptRate prompt_rate_;
  Reports reports_;
  Lockstep lockstep_;
  std::atomic<bool> may_leave_ = true;

  // Reused from step to step.
  std::vector<Row> rows_;
  std::vector<SequenceStep> batch_;
  std::vector<SampledToken> sampled_;

  mutable std::mutex load_mutex_;
  LoadReport load_;  // guarded by load_mutex_
};

}  // namespace baleen::worker
