// The requests of this router: plans each one, starts its legs on the workers, puts tokens in
// order, and ends it exactly once.
//
// A state machine without threads, sockets or a clock of its own: production runs it on the thread
// of router/cluster, tests and the simulator drive it by hand. Every call returns at once.
//
// A request is `waiting` (for room on the workers, in the order of FairQueue) or `running` (its
// legs are started). One that would have to wait longer than it may, by what was measured of those
// before it, is refused at once. Its ending is delivered at once; legs that are then still open on
// a worker are `closing`: their Ended frame is awaited, for a limited time, so that their work
// counts as long as the worker has it.
//
// A failure before the first token that another worker may cure is tried again with the next
// attempt; frames of the old one are dropped.
//
// The reply may end with the first token while KV is already on its way: the prefill rank withdraws
// the transfer then, and the decode rank's word of that may overtake the prefill rank's. So a
// transfer that failed at the decode rank waits for what the prefill rank has to say, for a limited
// time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "proto/contract/limits.h"
#include "router/admission/fair_queue.h"
#include "router/dispatch/links.h"
#include "router/dispatch/live.h"
#include "router/dispatch/messages.h"
#include "router/dispatch/reply_order.h"
#include "router/dispatch/worker_table.h"
#include "router/policy/route.h"

namespace baleen::router {

struct DispatchOptions {
  std::uint32_t attempts_max = 2;
  // The longest wait for room; then the request ends with kQueueFull.
  absl::Duration queue_wait_max = absl::Seconds(30);
  // Once somebody has waited all the time for this long, the load is no burst: from then on nobody
  // is let in who would wait longer than the second. So a queue is short when overload ends.
  absl::Duration standing_queue_after = absl::Seconds(5);
  absl::Duration standing_queue_wait_max = absl::Seconds(4);
  // While waits cannot be estimated yet, so many may wait: this number, or this many times those
  // that run.
  std::size_t waiting_unknown_max = 256;
  std::size_t waiting_unknown_per_running = 4;
  // The longest wait for the Ended frame of a leg whose request has ended.
  absl::Duration closing_max = absl::Seconds(10);
  // The longest wait for the prefill rank's word on a transfer that failed at the decode rank. A
  // rank that says nothing for this long is lost.
  absl::Duration verdict_wait_max =
      absl::Milliseconds(contract::kLeasesUntilLost * contract::kLeaseMs);
  RouteWeights weights;
  ServiceCost cost;
  // Where the random choices between ranks that are nearly equal begin: each router its own.
  std::uint64_t draw_seed = 0;
};

struct DispatchCounts {
  std::size_t running = 0;
  std::size_t waiting = 0;
  std::size_t closing = 0;               // legs
  std::uint64_t stale_frames_total = 0;  // of unknown requests or older attempts, dropped
};

// One thread.
class Dispatcher {
 public:
  // `random` gives the ids of transfers: never 0, unpredictable in production.
  Dispatcher(const DispatchOptions& options, const Clock& clock,
             std::function<std::uint64_t()> random);

  // Client side. Request ids are used once, in any order.
  void Submit(Request request);
  void Cancel(contract::RequestId id);
  // Ends all requests, and all that will be submitted, with `status`.
  void EndAll(absl::Status status);
  // Ends up to `count` requests with `status`: of the lowest priority, the youngest first. Returns
  // how many.
  std::size_t CancelLowest(std::size_t count, const absl::Status& status);

  // Worker side. `link` is borrowed until OnLost. Reports of workers that are not attached have no
  // effect.
  void OnAttached(WorkerId worker, std::shared_ptr<const WorkerInfo> info, WorkerLink& link);
  void OnLoad(WorkerId worker, const LoadReport& load);
  void OnCacheEvents(WorkerId worker, const CacheEventsFrame& events);
  void OnSuspect(WorkerId worker, bool suspect);
  void OnPromptLogprobs(WorkerId worker, PromptLogprobsFrame frame);
  void OnTokens(WorkerId worker, std::vector<TokenFrame> tokens);
  void OnEnded(WorkerId worker, EndedFrame ended);
  void OnLost(WorkerId worker, std::string_view why);

  // Ends what is past its deadline. To be called every few tens of milliseconds.
  void Tick();

  DispatchCounts counts() const;
  const ClusterView& view() const { return workers_.view(); }

 private:
  struct ClosingLeg {
    Grant grant;
    absl::Duration until;
  };
  enum class Parting { kCancel, kRelease, kAwait };

  // While it lives, sinks are given things; then they are flushed.
  class FlushAtEnd {
   public:
    explicit FlushAtEnd(Dispatcher& dispatcher) : dispatcher_(dispatcher) {}
    ~FlushAtEnd() { dispatcher_.FlushSinks(); }
    FlushAtEnd(const FlushAtEnd&) = delete;
    FlushAtEnd& operator=(const FlushAtEnd&) = delete;

   private:
    Dispatcher& dispatcher_;
  };

  Live* Find(std::uint64_t number);
  std::vector<std::uint64_t> NumbersOfLives() const;
  void Touch(ReplySink& sink);
  void FlushSinks();

  // Waiting and starting.
  std::size_t Waiting() const;
  std::size_t Running() const { return lives_.size() - Waiting(); }
  // How long a waiting request will wait; nullopt: nothing has been measured.
  std::optional<absl::Duration> WaitOf(const Live& live, absl::Duration now) const;
  void RefuseIfTooLate(Live& live);
  bool WouldEndTooLate(const Live& live, absl::Duration now) const;
  void ExpireWaiting(absl::Duration now);
  void TryStart(WaitingRoom& room);
  void TryStartAll();
  RouteQuery QueryOf(const Live& live) const;
  RouteResult Plan(const Live& live, RouteExplanation* explanation);
  void Start(Live& live, const RoutePlan& plan, const RouteExplanation& explanation);
  void StartLeg(OpenLeg& leg, const Work& work, StartFrame frame);

  // Running.
  Live* FindCurrent(WorkerId worker, const contract::RequestKey& key);
  void TakeToken(WorkerId worker, TokenFrame frame);
  absl::Status CheckPromptLogprobs(const Live& live, WorkerId worker,
                                   const PromptLogprobs& logprobs) const;
  bool Deliver(Live& live, ReplyToken token);
  void TakeCachedTokens(Live& live, std::uint32_t cached_tokens);
  void TakeEnd(Live& live, OpenLeg& leg, const EndedFrame& ended);
  void TakeFailure(Live& live, const OpenLeg& leg, const absl::Status& status);
  void TakeFinish(Live& live, const OpenLeg& leg, const EndedFrame& ended);
  void FinishIfComplete(Live& live);

  // Ending. Each removes `live` unless it is tried again.
  void FailOrRetry(Live& live, WorkerId culprit, const absl::Status& status);
  bool Retry(Live& live, WorkerId culprit);
  void Fail(Live& live, absl::Status status);
  void FailForDeadline(Live& live);
  void End(Live& live);
  void Part(Live& live, OpenLeg& leg, Parting parting);
  void ExpireVerdicts(absl::Duration now);
  void ExpireClosing(absl::Duration now);

  std::string Describe(const OpenLeg& leg) const;

  const DispatchOptions options_;
  const Clock& clock_;
  const std::function<std::uint64_t()> random_;
  WorkerTable workers_;
  std::uint64_t draws_;
  std::map<std::string, WaitingRoom> rooms_;                         // by model
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<Live>> lives_;  // by number
  std::set<std::pair<absl::Duration, std::uint64_t>> deadlines_;     // of all that have one
  std::deque<std::pair<absl::Duration, contract::RequestKey>>
      verdicts_;  // awaited until; oldest first
  std::map<std::pair<contract::RequestKey, WorkerId>, ClosingLeg> closing_;
  std::vector<ReplyToken> ready_;    // reused
  std::vector<ReplySink*> touched_;  // since the last flush
  std::optional<absl::Status> ended_all_;
  std::uint64_t stale_frames_total_ = 0;
};

}  // namespace baleen::router
