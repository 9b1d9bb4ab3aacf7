#include "router/dispatch/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "proto/contract/status.h"
#include "router/dispatch/worker_status.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;
using contract::RequestKey;

Dispatcher::Dispatcher(const DispatchOptions& options, const Clock& clock,
                       std::function<std::uint64_t()> random)
    : options_(options), clock_(clock), random_(std::move(random)) {}

// --- Client side ---

void Dispatcher::Submit(Request request) {
  BALEEN_CHECK(request.sink != nullptr && request.prompt != nullptr && !request.prompt->empty() &&
                   request.tokens_max >= 1,
               "requests are validated before they are submitted");
  const std::uint64_t number = request.id.number;
  const auto [it, is_new] = lives_.try_emplace(number);
  BALEEN_CHECK(is_new, "a request id is used once");
  Live& live = it->second;
  live.request = std::move(request);
  live.submitted = clock_.Monotonic();
  live.place = ++submissions_;
  if (ended_all_) {
    Fail(live, *ended_all_);
    return;
  }
  if (live.request.deadline < absl::InfiniteDuration()) {
    deadlines_.emplace(live.request.deadline, number);
  }
  const std::string model = live.request.model;
  waiting_[model].emplace(live.place, number);
  TryStart(model);
}

void Dispatcher::Cancel(contract::RequestId id) {
  const auto it = lives_.find(id.number);
  if (it == lives_.end() || it->second.request.id != id) return;
  Fail(it->second, MakeStatus(Reason::kCancelled, "the client closed the call"));
  TryStartAll();
}

void Dispatcher::EndAll(absl::Status status) {
  ended_all_ = std::move(status);
  while (!lives_.empty()) Fail(lives_.begin()->second, *ended_all_);
}

// --- Worker side ---

void Dispatcher::OnAttached(WorkerId worker, std::shared_ptr<const WorkerInfo> info,
                            WorkerLink& link) {
  workers_.Add(worker, std::move(info), link);
  TryStartAll();
}

void Dispatcher::OnLoad(WorkerId worker, const LoadReport& load) {
  workers_.SetLoad(worker, load);
  TryStartAll();
}

void Dispatcher::OnSuspect(WorkerId worker, bool suspect) {
  workers_.SetSuspect(worker, suspect);
  if (!suspect) TryStartAll();
}

void Dispatcher::OnPromptLogprobs(WorkerId worker, PromptLogprobsFrame frame) {
  Live* live = FindCurrent(worker, frame.key);
  if (live == nullptr) {
    ++stale_frames_total_;
    return;
  }
  PromptLogprobs& logprobs = frame.logprobs;
  if (absl::Status status = CheckPromptLogprobs(*live, worker, logprobs); !status.ok()) {
    Fail(*live, std::move(status));
    return;
  }
  // An attempt before this one has perhaps delivered some: they are the same, to the bit.
  const std::size_t known =
      std::min(live->prompt_logprobs_delivered - logprobs.first, logprobs.entries.size());
  logprobs.entries.erase(logprobs.entries.begin(),
                         logprobs.entries.begin() + static_cast<std::ptrdiff_t>(known));
  logprobs.first += static_cast<std::uint32_t>(known);
  if (logprobs.entries.empty()) return;
  live->prompt_logprobs_delivered += logprobs.entries.size();
  if (live->request.sink->PromptLogprobs(live->request.id, std::move(logprobs))) return;
  Fail(*live, MakeStatus(Reason::kCancelled, "the client takes log-probabilities too slowly"));
}

void Dispatcher::OnTokens(WorkerId worker, std::vector<TokenFrame> tokens) {
  for (TokenFrame& token : tokens) TakeToken(worker, std::move(token));
}

void Dispatcher::OnEnded(WorkerId worker, EndedFrame ended) {
  if (const auto it = closing_.find({ended.key, worker}); it != closing_.end()) {
    workers_.GiveBack(it->second.grant);
    closing_.erase(it);
  } else if (Live* live = FindCurrent(worker, ended.key)) {
    OpenLeg& leg = live->first.worker == worker ? live->first : live->decode;
    leg.open = false;
    workers_.GiveBack(leg.grant);
    live->ending.kv_transfer_bytes =
        std::max(live->ending.kv_transfer_bytes, ended.kv_transfer_bytes);
    if (&leg == &live->first) {
      const auto prompt_tokens = static_cast<std::uint32_t>(live->request.prompt->size());
      live->ending.cached_tokens = std::min(ended.cached_tokens, prompt_tokens);
    }
    TakeEnd(*live, leg, ended);
  } else {
    ++stale_frames_total_;
    return;
  }
  TryStartAll();
}

void Dispatcher::OnLost(WorkerId worker, std::string_view why) {
  if (!workers_.Contains(worker)) return;
  const std::string name = workers_.NameOf(worker);
  workers_.Remove(worker);
  std::erase_if(closing_, [worker](const auto& entry) { return entry.first.second == worker; });
  std::vector<std::uint64_t> touched;
  for (auto& [number, live] : lives_) {
    for (OpenLeg* leg : {&live.first, &live.decode}) {
      if (!leg->open || leg->worker != worker) continue;
      leg->open = false;
      const bool done_here = leg == &live.first && live.prefill_is_done();
      if (!done_here) touched.push_back(number);
    }
  }
  for (const std::uint64_t number : touched) {
    const auto it = lives_.find(number);
    if (it == lives_.end()) continue;
    FailOrRetry(it->second, worker,
                MakeStatus(Reason::kWorkerLost, fmt::format("worker {}: {}", name, why)));
  }
  TryStartAll();
}

void Dispatcher::Tick() {
  const absl::Duration now = clock_.Monotonic();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Live& live = lives_.at(deadlines_.begin()->second);
    Fail(live, MakeStatus(Reason::kDeadlineExceeded,
                          live.waiting ? "while waiting for a free worker" : "while running"));
  }
  ExpireWaiting(now);
  ExpireVerdicts(now);
  ExpireClosing(now);
  TryStartAll();  // room has come, or another request is at the head of its queue
}

DispatchCounts Dispatcher::counts() const {
  std::size_t waiting = 0;
  for (const auto& [model, queue] : waiting_) waiting += queue.size();
  return {.running = lives_.size() - waiting,
          .waiting = waiting,
          .closing = closing_.size(),
          .stale_frames_total = stale_frames_total_};
}

// --- Starting ---

void Dispatcher::TryStartAll() {
  std::vector<std::string> models;
  models.reserve(waiting_.size());
  for (const auto& [model, queue] : waiting_) models.push_back(model);
  for (const std::string& model : models) TryStart(model);
}

void Dispatcher::TryStart(const std::string& model) {
  for (auto it = waiting_.find(model); it != waiting_.end(); it = waiting_.find(model)) {
    Live& live = lives_.at(it->second.begin()->second);
    const RouteResult result = Plan(live);
    if (const auto* plan = std::get_if<RoutePlan>(&result)) {
      it->second.erase(it->second.begin());
      if (it->second.empty()) waiting_.erase(it);
      Start(live, *plan);
      continue;
    }
    const auto& refusal = std::get<RouteRefusal>(result);
    if (refusal.reason == Reason::kQueueFull) return;
    Fail(live, MakeStatus(refusal.reason, refusal.message));
  }
}

RouteResult Dispatcher::Plan(const Live& live) const {
  return PlanRoute(workers_.view(),
                   {.model = live.request.model,
                    .prompt_tokens = static_cast<std::uint32_t>(live.request.prompt->size()),
                    .tokens_max = live.request.tokens_max,
                    .avoid = live.avoid},
                   options_.weights);
}

void Dispatcher::Start(Live& live, const RoutePlan& plan) {
  const RouteQuery query{.prompt_tokens = static_cast<std::uint32_t>(live.request.prompt->size()),
                         .tokens_max = live.request.tokens_max};
  live.waiting = false;
  live.split = !plan.whole();
  live.decode_has_spoken = false;
  live.decode_failure.reset();
  ++live.attempt;
  live.ending.prefill_worker = workers_.NameOf(plan.prefill);
  live.ending.decode_worker = workers_.NameOf(plan.decode);

  StartFrame frame{.key = live.key(),
                   .leg = Leg::kWhole,
                   .prompt = live.request.prompt,
                   .sampling = live.request.sampling,
                   .tokens_max = live.request.tokens_max,
                   .ignore_eos = live.request.ignore_eos,
                   .stop_token_ids = live.request.stop_token_ids,
                   .tokens_min = live.request.tokens_min,
                   .grammar = live.request.grammar};
  if (live.request.deadline < absl::InfiniteDuration()) {
    frame.time_left = live.request.deadline - clock_.Monotonic();
  }
  live.first = {.worker = plan.prefill};
  live.decode = {};
  if (live.split) {
    frame.transfer = {random_()};
    // The decode rank first: it should know of the transfer when the offer comes.
    live.decode = {.worker = plan.decode};
    frame.leg = Leg::kDecode;
    StartLeg(live.decode, DecodeWork(query), frame);
    frame.leg = Leg::kPrefill;
    frame.peer_address = workers_.info(plan.decode).data_plane_address;
  }
  frame.prompt_logprobs = live.request.prompt_logprobs;
  frame.block_hashes = live.request.block_hashes;
  StartLeg(live.first, live.split ? PrefillWork(query) : WholeWork(query), std::move(frame));
}

void Dispatcher::StartLeg(OpenLeg& leg, const Work& work, StartFrame frame) {
  leg.open = true;
  leg.grant = workers_.Take(leg.worker, work);
  workers_.Send(leg.worker, std::move(frame));
}

// --- Running ---

Dispatcher::Live* Dispatcher::FindCurrent(WorkerId worker, const RequestKey& key) {
  const auto it = lives_.find(key.id.number);
  if (it == lives_.end() || it->second.key() != key) return nullptr;
  Live& live = it->second;
  const bool serves = (live.first.open && live.first.worker == worker) ||
                      (live.decode.open && live.decode.worker == worker);
  return serves ? &live : nullptr;
}

void Dispatcher::TakeToken(WorkerId worker, TokenFrame frame) {
  Live* live = FindCurrent(worker, frame.key);
  if (live == nullptr) {
    ++stale_frames_total_;
    return;
  }
  const bool from_first = live->first.worker == worker;
  const bool in_its_leg = !live->split || from_first == (frame.sequence == 0);
  if (!in_its_leg || frame.sequence >= live->request.tokens_max) {
    Fail(*live, MakeStatus(Reason::kInternal,
                           fmt::format("{} sent token {}, which is not of its leg",
                                       Describe(from_first ? live->first : live->decode),
                                       frame.sequence)));
    return;
  }
  if (from_first && live->request.prompt_logprobs &&
      live->prompt_logprobs_delivered < live->request.prompt->size()) {
    Fail(*live, MakeStatus(Reason::kInternal,
                           fmt::format("{} sent a token after log-probabilities of {} of {} prompt "
                                       "tokens",
                                       Describe(live->first), live->prompt_logprobs_delivered,
                                       live->request.prompt->size())));
    return;
  }
  if (!from_first) live->decode_has_spoken = true;
  const std::uint64_t number = frame.key.id.number;
  ready_.clear();
  switch (live->order.Accept(frame.sequence, std::move(frame.token), ready_)) {
    case ReplyOrder::Verdict::kAccepted:
      break;
    case ReplyOrder::Verdict::kDuplicate:
      ++stale_frames_total_;
      return;
    case ReplyOrder::Verdict::kTooEarly:
      Fail(*live, MakeStatus(Reason::kInternal, fmt::format("{} tokens came before token {}",
                                                            kEarlyTokensMax, live->order.next())));
      return;
  }
  for (ReplyToken& token : ready_) {
    const auto it = lives_.find(number);
    if (it == lives_.end()) return;  // the sink had no room
    Deliver(it->second, std::move(token));
  }
  const auto it = lives_.find(number);
  if (it != lives_.end() && it->second.finish) FinishIfComplete(it->second);
}

// They begin within, or right after, what is known already, and end within the prompt.
absl::Status Dispatcher::CheckPromptLogprobs(const Live& live, WorkerId worker,
                                             const PromptLogprobs& logprobs) const {
  const bool asked = live.request.prompt_logprobs.has_value() && live.order.next() == 0 &&
                     live.first.worker == worker;
  const std::size_t end = logprobs.first + logprobs.entries.size();
  if (asked && logprobs.first <= live.prompt_logprobs_delivered &&
      end <= live.request.prompt->size()) {
    return absl::OkStatus();
  }
  return MakeStatus(
      Reason::kInternal,
      fmt::format("worker {} sent log-probabilities of prompt tokens {} to {}, {}",
                  workers_.NameOf(worker), logprobs.first, end,
                  asked ? fmt::format("{} of {} are known", live.prompt_logprobs_delivered,
                                      live.request.prompt->size())
                        : std::string("which are not of its leg")));
}

void Dispatcher::Deliver(Live& live, ReplyToken token) {
  if (live.request.sink->Token(live.request.id, std::move(token))) {
    ++live.ending.tokens;
    return;
  }
  Fail(live, MakeStatus(Reason::kCancelled, "the client takes tokens too slowly"));
}

void Dispatcher::TakeEnd(Live& live, OpenLeg& leg, const EndedFrame& ended) {
  const bool is_prefill_leg = live.split && &leg == &live.first;
  switch (ended.reason) {
    case EndReason::kStop:
    case EndReason::kLength:
      TakeFinish(live, leg, ended);
      return;
    case EndReason::kHandedOver:
      if (is_prefill_leg && live.order.next() > 0) {
        if (const auto failure = live.decode_failure) Fail(live, *failure);
        return;
      }
      Fail(live, MakeStatus(Reason::kInternal,
                            fmt::format("{} handed over {}", Describe(leg),
                                        is_prefill_leg ? "without a first token"
                                                       : "a leg that is not a prefill leg")));
      return;
    case EndReason::kCancelled:
      TakeFailure(
          live, leg,
          MakeStatus(Reason::kWorkerLost, fmt::format("{} gave the request up", Describe(leg))));
      return;
    case EndReason::kError:
      TakeFailure(live, leg, WorkerError(workers_.NameOf(leg.worker), ended.status));
      return;
  }
}

void Dispatcher::TakeFailure(Live& live, const OpenLeg& leg, const absl::Status& status) {
  if (&leg == &live.first && live.prefill_is_done()) {
    log::Warning("worker failed a leg that is not needed any more",
                 {{"request", contract::ToString(live.request.id)},
                  {"error", std::string(status.message())}});
    return;
  }
  const auto reason = contract::ReasonOf(status);
  const bool given_up = reason == Reason::kTransferFailed || reason == Reason::kWorkerLost;
  if (&leg == &live.decode && live.first.open && !live.decode_has_spoken && given_up) {
    live.decode_failure = status;
    verdicts_.emplace_back(clock_.Monotonic() + options_.verdict_wait_max, live.key());
    return;
  }
  // A transfer has two ends, and the one that reports is often the healthy one. A decode rank is
  // the one to change: that keeps the prefill rank, whose prefix cache may help.
  const bool transfer = reason == Reason::kTransferFailed && live.split;
  FailOrRetry(live, transfer ? live.decode.worker : leg.worker, status);
}

void Dispatcher::TakeFinish(Live& live, const OpenLeg& leg, const EndedFrame& ended) {
  const bool is_decode_leg = &leg == &live.decode;
  const std::uint64_t tokens = std::uint64_t{ended.tokens} + (is_decode_leg ? 1 : 0);
  if (tokens == 0 || tokens > live.request.tokens_max) {
    Fail(live, MakeStatus(Reason::kInternal,
                          fmt::format("{} ended a reply of at most {} tokens after {}",
                                      Describe(leg), live.request.tokens_max, tokens)));
    return;
  }
  live.finish =
      Finish{ended.reason == EndReason::kStop ? FinishReason::kStop : FinishReason::kLength,
             static_cast<std::uint32_t>(tokens)};
  FinishIfComplete(live);
}

void Dispatcher::FinishIfComplete(Live& live) {
  const std::uint32_t have = live.order.next();
  if (have == live.finish->tokens) {
    live.ending.finish = live.finish->reason;
    // The reply ended with the prefill rank's token: the decode rank waits for KV that nobody
    // needs.
    Part(live, live.decode, Parting::kRelease);
    Part(live, live.first, Parting::kAwait);
    End(live);
    return;
  }
  const bool first_is_late = have == 0 && live.split && live.first.open;
  if (have < live.finish->tokens && first_is_late) return;
  Fail(live, MakeStatus(Reason::kInternal, fmt::format("the reply ended after {} tokens, {} came",
                                                       live.finish->tokens, have)));
}

// --- Ending ---

void Dispatcher::FailOrRetry(Live& live, WorkerId culprit, const absl::Status& status) {
  const auto reason = contract::ReasonOf(status);
  if (reason && CuredElsewhere(*reason) && Retry(live, culprit)) {
    log::Info("request tried again", {{"request", contract::ToString(live.request.id)},
                                      {"attempt", live.attempt},
                                      {"reason", contract::RowOf(*reason).name}});
    return;
  }
  Fail(live, status);
}

bool Dispatcher::Retry(Live& live, WorkerId culprit) {
  if (live.order.next() > 0 || live.attempt >= options_.attempts_max) return false;
  live.avoid.push_back(culprit);
  const RouteResult result = Plan(live);
  const auto* plan = std::get_if<RoutePlan>(&result);
  if (plan == nullptr) return false;
  Part(live, live.first, Parting::kCancel);
  Part(live, live.decode, Parting::kCancel);
  live.order.Restart();
  live.finish.reset();
  live.ending = {};
  Start(live, *plan);
  return true;
}

void Dispatcher::Fail(Live& live, absl::Status status) {
  live.ending.status = std::move(status);
  Part(live, live.first, Parting::kCancel);
  Part(live, live.decode, Parting::kCancel);
  End(live);
}

void Dispatcher::End(Live& live) {
  const std::uint64_t number = live.request.id.number;
  if (live.waiting) {
    if (const auto it = waiting_.find(live.request.model); it != waiting_.end()) {
      it->second.erase(live.place);
      if (it->second.empty()) waiting_.erase(it);
    }
  }
  deadlines_.erase({live.request.deadline, number});
  ReplySink* sink = live.request.sink;
  const contract::RequestId id = live.request.id;
  Ending ending = std::move(live.ending);
  lives_.erase(number);
  sink->End(id, std::move(ending));
}

void Dispatcher::Part(Live& live, OpenLeg& leg, Parting parting) {
  if (!leg.open) return;
  leg.open = false;
  closing_.emplace(std::pair{live.key(), leg.worker},
                   ClosingLeg{leg.grant, clock_.Monotonic() + options_.closing_max});
  if (parting == Parting::kCancel) workers_.Send(leg.worker, CancelFrame{live.key()});
  if (parting == Parting::kRelease) workers_.Send(leg.worker, ReleaseFrame{live.key()});
}

void Dispatcher::ExpireWaiting(absl::Duration now) {
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const std::map<std::uint64_t, std::uint64_t>& queue = (it++)->second;  // Fail may erase it
    std::vector<std::uint64_t> expired;
    for (const auto& [place, number] : queue) {
      if (lives_.at(number).submitted + options_.queue_wait_max > now) break;
      expired.push_back(number);
    }
    for (const std::uint64_t number : expired) {
      Fail(lives_.at(number),
           MakeStatus(Reason::kQueueFull,
                      fmt::format("no worker had room within {}",
                                  absl::FormatDuration(options_.queue_wait_max))));
    }
  }
}

// The prefill rank has not said how its leg ended: the decode rank's failure counts.
void Dispatcher::ExpireVerdicts(absl::Duration now) {
  while (!verdicts_.empty() && verdicts_.front().first <= now) {
    const RequestKey key = verdicts_.front().second;
    verdicts_.pop_front();
    const auto it = lives_.find(key.id.number);
    if (it == lives_.end() || it->second.key() != key || !it->second.decode_failure) continue;
    const absl::Status failure = *it->second.decode_failure;
    FailOrRetry(it->second, it->second.decode.worker, failure);
  }
}

void Dispatcher::ExpireClosing(absl::Duration now) {
  for (auto it = closing_.begin(); it != closing_.end();) {
    const auto& [key, worker] = it->first;
    if (it->second.until > now) {
      ++it;
      continue;
    }
    log::Warning("worker has not ended a leg",
                 {{"worker", workers_.NameOf(worker)}, {"request", contract::ToString(key.id)}});
    workers_.Send(worker, ReleaseFrame{key});
    workers_.GiveBack(it->second.grant);
    it = closing_.erase(it);
  }
}

std::string Dispatcher::Describe(const OpenLeg& leg) const {
  return fmt::format("worker {}", workers_.NameOf(leg.worker));
}

}  // namespace baleen::router
