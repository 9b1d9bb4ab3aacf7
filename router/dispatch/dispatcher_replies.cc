// How replies come in and requests end.
#include <fmt/format.h>

#include <algorithm>

#include "observability/base/log.h"
#include "proto/contract/status.h"
#include "router/dispatch/dispatcher.h"
#include "router/dispatch/worker_status.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;
using contract::RequestKey;

// --- What workers say ---

void Dispatcher::OnPromptLogprobs(WorkerId worker, PromptLogprobsFrame frame) {
  const FlushAtEnd flush(*this);
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
  Touch(*live->request.sink);
  if (live->request.sink->PromptLogprobs(live->request.id, std::move(logprobs))) return;
  Fail(*live, MakeStatus(Reason::kCancelled, "the client takes log-probabilities too slowly"));
}

void Dispatcher::OnTokens(WorkerId worker, std::vector<TokenFrame> tokens) {
  const FlushAtEnd flush(*this);
  for (TokenFrame& token : tokens) TakeToken(worker, std::move(token));
}

void Dispatcher::OnEnded(WorkerId worker, EndedFrame ended) {
  const FlushAtEnd flush(*this);
  if (const auto it = closing_.find({ended.key, worker}); it != closing_.end()) {
    workers_.GiveBack(it->second.grant);
    closing_.erase(it);
  } else if (Live* live = FindCurrent(worker, ended.key)) {
    OpenLeg& leg = live->first.worker == worker ? live->first : live->decode;
    leg.open = false;
    workers_.GiveBack(leg.grant);
    live->ending.kv_transfer_bytes =
        std::max(live->ending.kv_transfer_bytes, ended.kv_transfer_bytes);
    if (&leg == &live->first) TakeCachedTokens(*live, ended.cached_tokens);
    TakeEnd(*live, leg, ended);
  } else {
    ++stale_frames_total_;
    return;
  }
  TryStartAll();
}

// The prompt was charged as it was expected to be found in the cache.
void Dispatcher::TakeCachedTokens(Live& live, std::uint32_t cached_tokens) {
  const auto prompt_tokens = static_cast<std::uint32_t>(live.request.prompt->size());
  live.ending.cached_tokens = std::min(cached_tokens, prompt_tokens);
  live.place.Charge(options_.cost.OfPrompt(prompt_tokens, live.ending.cached_tokens) -
                    options_.cost.OfPrompt(prompt_tokens, live.cached_charged));
  live.cached_charged = live.ending.cached_tokens;
}

Live* Dispatcher::FindCurrent(WorkerId worker, const RequestKey& key) {
  Live* found = Find(key.id.number);
  if (found == nullptr || found->key() != key) return nullptr;
  Live& live = *found;
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
  if (live->order.AcceptNext(frame.sequence)) {
    if (Deliver(*live, std::move(frame.token)) && live->finish) FinishIfComplete(*live);
    return;
  }
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
    if (!Deliver(*live, std::move(token))) return;
  }
  if (live->finish) FinishIfComplete(*live);
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

// False: the sink had no room, and the request has ended.
bool Dispatcher::Deliver(Live& live, ReplyToken token) {
  ReplySink& sink = *live.request.sink;
  Touch(sink);
  if (!sink.Token(live.request.id, std::move(token))) {
    Fail(live, MakeStatus(Reason::kCancelled, "the client takes tokens too slowly"));
    return false;
  }
  if (live.ending.tokens == 0) live.first_token_at = clock_.Monotonic();
  ++live.ending.tokens;
  live.place.Charge(options_.cost.reply_token);
  return true;
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
    live.room->estimate.Finished(live.first_token_at - live.started,
                                 clock_.Monotonic() - live.started, have);
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
  RouteExplanation explanation;
  const RouteResult result = Plan(live, &explanation);
  const auto* plan = std::get_if<RoutePlan>(&result);
  if (plan == nullptr) return false;
  Part(live, live.first, Parting::kCancel);
  Part(live, live.decode, Parting::kCancel);
  live.order.Restart();
  live.finish.reset();
  live.ending = {};
  Start(live, *plan, explanation);
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
  if (live.room != nullptr) {
    live.room->queue.Leave(live.place);
    live.room->estimate.SetBacklogged(clock_.Monotonic(), live.room->queue.size() > 0);
  }
  if (live.request.deadline < absl::InfiniteDuration()) {
    deadlines_.erase({live.request.deadline, number});
  }
  ReplySink* sink = live.request.sink;
  const contract::RequestId id = live.request.id;
  Ending ending = std::move(live.ending);
  lives_.erase(number);
  Touch(*sink);
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

// The prefill rank has not said how its leg ended: the decode rank's failure counts.
void Dispatcher::ExpireVerdicts(absl::Duration now) {
  while (!verdicts_.empty() && verdicts_.front().first <= now) {
    const RequestKey key = verdicts_.front().second;
    verdicts_.pop_front();
    Live* live = Find(key.id.number);
    if (live == nullptr || live->key() != key || !live->decode_failure) continue;
    const absl::Status failure = *live->decode_failure;
    FailOrRetry(*live, live->decode.worker, failure);
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
