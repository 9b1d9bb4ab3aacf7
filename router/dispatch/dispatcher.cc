// What comes in, what waits, and how it is started. Tokens and endings: dispatcher_replies.cc.
#include "router/dispatch/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "proto/contract/status.h"

namespace baleen::router {

using contract::MakeStatus;
using contract::Reason;
using contract::RequestKey;

namespace {

constexpr absl::Duration kRetryAfterMin = absl::Milliseconds(50);
constexpr absl::Duration kRetryAfterMax = absl::Seconds(30);
constexpr absl::Duration kRetryAfterUnknown = absl::Seconds(1);
// A queue under overload is as long as it may be: without a margin, half of those who are let in
// would be a little too late in the end. And room comes in bursts, a part of a run apart.
constexpr double kWaitMargin = 1.25;
constexpr double kRunMargin = 0.5;

std::uint64_t Mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

std::uint64_t WorkOf(const Live& live) {
  return live.request.prompt->size() + std::uint64_t{live.request.tokens_max};
}

// How many wait before it, each as large as they are on average.
double RequestsBefore(const WaitingRoom& room, const Live& live) {
  return static_cast<double>(room.queue.size()) *
         static_cast<double>(room.queue.WorkBefore(live.place)) /
         static_cast<double>(room.queue.work());
}

std::string InMilliseconds(absl::Duration duration) {
  return fmt::format("{} ms", absl::ToInt64Milliseconds(duration));
}

}  // namespace

Dispatcher::Dispatcher(const DispatchOptions& options, const Clock& clock,
                       std::function<std::uint64_t()> random)
    : options_(options), clock_(clock), random_(std::move(random)), draws_(options.draw_seed) {}

// --- Client side ---

void Dispatcher::Submit(Request request) {
  BALEEN_CHECK(request.sink != nullptr && request.prompt != nullptr && !request.prompt->empty() &&
                   request.tokens_max >= 1,
               "requests are validated before they are submitted");
  const FlushAtEnd flush(*this);
  const std::uint64_t number = request.id.number;
  const auto [it, is_new] = lives_.try_emplace(number, std::make_unique<Live>());
  BALEEN_CHECK(is_new, "a request id is used once");
  Live& live = *it->second;
  live.request = std::move(request);
  live.submitted = clock_.Monotonic();
  if (ended_all_) {
    Fail(live, *ended_all_);
    return;
  }
  if (live.request.deadline < absl::InfiniteDuration()) {
    deadlines_.emplace(live.request.deadline, number);
  }
  // Models are those that this router serves: validated.
  live.room = &rooms_[live.request.model];
  FairQueue& queue = live.room->queue;
  live.place = queue.Enter(live.request.tenant, live.request.priority,
                           {.number = number, .work = WorkOf(live), .since = live.submitted});
  // Those before it have found no room, and none has come since.
  if (queue.Head()->number == number) TryStart(*live.room);
  if (const auto still = lives_.find(number); still != lives_.end() && still->second->waiting()) {
    live.room->estimate.SetBacklogged(live.submitted, true);
    RefuseIfTooLate(live);
  }
}

void Dispatcher::Cancel(contract::RequestId id) {
  const FlushAtEnd flush(*this);
  Live* live = Find(id.number);
  if (live == nullptr || live->request.id != id) return;
  Fail(*live, MakeStatus(Reason::kCancelled, "the client closed the call"));
  TryStartAll();
}

void Dispatcher::EndAll(absl::Status status) {
  const FlushAtEnd flush(*this);
  ended_all_ = std::move(status);
  for (const std::uint64_t number : NumbersOfLives()) Fail(*lives_.at(number), *ended_all_);
}

std::size_t Dispatcher::CancelLowest(std::size_t count, const absl::Status& status) {
  const FlushAtEnd flush(*this);
  std::vector<const Live*> lives;
  lives.reserve(lives_.size());
  for (const auto& [number, live] : lives_) lives.push_back(live.get());
  count = std::min(count, lives.size());
  std::ranges::partial_sort(lives, lives.begin() + static_cast<std::ptrdiff_t>(count),
                            [](const Live* a, const Live* b) {
                              if (a->request.priority != b->request.priority) {
                                return a->request.priority < b->request.priority;
                              }
                              return a->request.id.number > b->request.id.number;
                            });
  std::vector<std::uint64_t> numbers;
  for (std::size_t i = 0; i < count; ++i) numbers.push_back(lives[i]->request.id.number);
  for (const std::uint64_t number : numbers) Fail(*lives_.at(number), status);
  return count;
}

// --- Worker side ---

void Dispatcher::OnAttached(WorkerId worker, std::shared_ptr<const WorkerInfo> info,
                            WorkerLink& link) {
  const FlushAtEnd flush(*this);
  workers_.Add(worker, std::move(info), link);
  TryStartAll();
}

void Dispatcher::OnLoad(WorkerId worker, const LoadReport& load) {
  const FlushAtEnd flush(*this);
  const WorkerView* view = workers_.view().Find(worker);
  if (view == nullptr) return;
  const auto room = rooms_.find(view->info->model.name);
  const FairQueue::Waiting* head = room == rooms_.end() ? nullptr : room->second.queue.Head();
  if (head == nullptr) {
    workers_.SetLoad(worker, load);
    return;
  }
  // Loads come many times a second from each of many ranks: the head is planned again only when
  // this rank could not take its part before and now can.
  const RouteQuery query = QueryOf(*lives_.at(head->number));
  const bool could = CouldTake(*view, query);
  workers_.SetLoad(worker, load);
  if (!could && CouldTake(*view, query)) TryStart(room->second);
}

void Dispatcher::OnCacheEvents(WorkerId worker, const CacheEventsFrame& events) {
  workers_.TakeCacheEvents(worker, events);
}

void Dispatcher::OnSuspect(WorkerId worker, bool suspect) {
  const FlushAtEnd flush(*this);
  workers_.SetSuspect(worker, suspect);
  if (!suspect) TryStartAll();
}

void Dispatcher::OnLost(WorkerId worker, std::string_view why) {
  if (!workers_.Contains(worker)) return;
  const FlushAtEnd flush(*this);
  const std::string name = workers_.NameOf(worker);
  workers_.Remove(worker);
  std::erase_if(closing_, [worker](const auto& entry) { return entry.first.second == worker; });
  std::vector<std::uint64_t> touched;
  for (const std::uint64_t number : NumbersOfLives()) {
    Live& live = *lives_.at(number);
    for (OpenLeg* leg : {&live.first, &live.decode}) {
      if (!leg->open || leg->worker != worker) continue;
      leg->open = false;
      const bool done_here = leg == &live.first && live.prefill_is_done();
      if (!done_here) touched.push_back(number);
    }
  }
  for (const std::uint64_t number : touched) {
    Live* live = Find(number);
    if (live == nullptr) continue;
    FailOrRetry(*live, worker,
                MakeStatus(Reason::kWorkerLost, fmt::format("worker {}: {}", name, why)));
  }
  TryStartAll();
}

void Dispatcher::Tick() {
  const FlushAtEnd flush(*this);
  const absl::Duration now = clock_.Monotonic();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    FailForDeadline(*lives_.at(deadlines_.begin()->second));
  }
  ExpireWaiting(now);
  ExpireVerdicts(now);
  ExpireClosing(now);
  workers_.Sweep();
  TryStartAll();  // room has come, or another request is at the head of its queue
}

std::size_t Dispatcher::Waiting() const {
  std::size_t waiting = 0;
  for (const auto& [model, room] : rooms_) waiting += room.queue.size();
  return waiting;
}

DispatchCounts Dispatcher::counts() const {
  return {.running = Running(),
          .waiting = Waiting(),
          .closing = closing_.size(),
          .stale_frames_total = stale_frames_total_};
}

Live* Dispatcher::Find(std::uint64_t number) {
  const auto it = lives_.find(number);
  return it == lives_.end() ? nullptr : it->second.get();
}

std::vector<std::uint64_t> Dispatcher::NumbersOfLives() const {
  std::vector<std::uint64_t> numbers;
  numbers.reserve(lives_.size());
  for (const auto& [number, live] : lives_) numbers.push_back(number);
  std::ranges::sort(numbers);
  return numbers;
}

void Dispatcher::Touch(ReplySink& sink) {
  if (std::ranges::find(touched_, &sink) == touched_.end()) touched_.push_back(&sink);
}

void Dispatcher::FlushSinks() {
  for (ReplySink* sink : touched_) sink->Flush();
  touched_.clear();
}

// --- Waiting ---

std::optional<absl::Duration> Dispatcher::WaitOf(const Live& live, absl::Duration now) const {
  const WaitingRoom& room = *live.room;
  if (const auto wait = room.estimate.Wait(now, room.queue.WorkBefore(live.place))) return wait;
  const absl::Duration run = room.estimate.Run(live.request.tokens_max);
  if (run == absl::ZeroDuration()) return std::nullopt;
  // No rate yet, but how long a request runs: so many end in that time as run now.
  return run *
         (RequestsBefore(room, live) / static_cast<double>(std::max<std::size_t>(Running(), 1)));
}

void Dispatcher::RefuseIfTooLate(Live& live) {
  const absl::Duration now = clock_.Monotonic();
  const WaitingRoom& room = *live.room;
  const std::optional<absl::Duration> wait = WaitOf(live, now);
  if (!wait) {
    const std::size_t most =
        std::max(options_.waiting_unknown_max, options_.waiting_unknown_per_running * Running());
    const double before = RequestsBefore(room, live);
    if (before < static_cast<double>(most)) return;
    live.ending.retry_after = kRetryAfterUnknown;
    Fail(live, MakeStatus(Reason::kQueueFull,
                          fmt::format("{:.0f} requests wait before it, limit {} until some have "
                                      "finished; retry after {}",
                                      before, most, InMilliseconds(live.ending.retry_after))));
    return;
  }
  const bool standing = room.estimate.BackloggedFor(now) > options_.standing_queue_after;
  const absl::Duration limit =
      standing ? std::min(options_.queue_wait_max, options_.standing_queue_wait_max)
               : options_.queue_wait_max;
  const absl::Duration run = room.estimate.Run(live.request.tokens_max);
  const absl::Duration until_deadline = live.request.deadline - now - run;
  const absl::Duration most = std::max(std::min(limit, until_deadline), absl::ZeroDuration());
  const absl::Duration cautious = *wait * kWaitMargin + run * kRunMargin;
  if (cautious <= most) return;
  live.ending.retry_after = std::clamp(cautious - most, kRetryAfterMin, kRetryAfterMax);
  Fail(live,
       MakeStatus(
           Reason::kQueueFull,
           fmt::format("it would wait for about {}, {} {}; retry after {}", InMilliseconds(*wait),
                       until_deadline < limit ? "its deadline leaves" : "the limit is",
                       InMilliseconds(most), InMilliseconds(live.ending.retry_after))));
}

// Room given to what will not end in time is lost to those that would: under overload that would
// become all of it. Who has not waited, or is alone, gets its chance.
bool Dispatcher::WouldEndTooLate(const Live& live, absl::Duration now) const {
  return live.submitted < now && live.room->queue.size() > 1 &&
         live.request.deadline - now < live.room->estimate.Run(live.request.tokens_max);
}

void Dispatcher::FailForDeadline(Live& live) {
  Fail(live, MakeStatus(Reason::kDeadlineExceeded,
                        live.waiting() ? "while waiting for a free worker" : "while running"));
}

void Dispatcher::ExpireWaiting(absl::Duration now) {
  for (auto& [model, room] : rooms_) {
    for (const std::uint64_t number : room.queue.WaitingSince(now - options_.queue_wait_max)) {
      Live& live = *lives_.at(number);
      const auto wait = WaitOf(live, now);
      if (wait) live.ending.retry_after = std::clamp(*wait, kRetryAfterMin, kRetryAfterMax);
      Fail(live, MakeStatus(Reason::kQueueFull,
                            fmt::format("no worker had room within {}",
                                        absl::FormatDuration(options_.queue_wait_max))));
    }
  }
}

// --- Starting ---

void Dispatcher::TryStartAll() {
  for (auto& [model, room] : rooms_) TryStart(room);
}

void Dispatcher::TryStart(WaitingRoom& room) {
  while (const FairQueue::Waiting* head = room.queue.Head()) {
    Live& live = *lives_.at(head->number);
    const absl::Duration now = clock_.Monotonic();
    if (live.request.deadline <= now) {
      FailForDeadline(live);
      continue;
    }
    if (WouldEndTooLate(live, now)) {
      Fail(live, MakeStatus(Reason::kQueueFull,
                            "it has waited too long to end before its deadline, and others wait"));
      continue;
    }
    RouteExplanation explanation;
    const RouteResult result = Plan(live, &explanation);
    if (const auto* plan = std::get_if<RoutePlan>(&result)) {
      if (live.submitted < now) room.estimate.Started(now, head->work);
      room.queue.StopWaiting(live.place);
      room.estimate.SetBacklogged(now, room.queue.size() > 0);
      Start(live, *plan, explanation);
      continue;
    }
    const auto& refusal = std::get<RouteRefusal>(result);
    if (refusal.reason == Reason::kQueueFull) return;
    Fail(live, MakeStatus(refusal.reason, refusal.message));
  }
}

RouteQuery Dispatcher::QueryOf(const Live& live) const {
  return {.model = live.request.model,
          .prompt_tokens = static_cast<std::uint32_t>(live.request.prompt->size()),
          .tokens_max = live.request.tokens_max,
          .avoid = live.avoid};
}

RouteResult Dispatcher::Plan(const Live& live, RouteExplanation* explanation) {
  RouteQuery query = QueryOf(live);
  // Log-probabilities of a prompt need all of it computed.
  if (live.request.block_hashes != nullptr && !live.request.prompt_logprobs) {
    query.cached_blocks = workers_.MatchPrefix(*live.request.block_hashes, clock_.Monotonic());
  }
  draws_ += 0x9e3779b97f4a7c15ULL;
  query.draw = Mix(draws_);
  return PlanRoute(workers_.view(), query, options_.weights,
                   live.request.explain ? explanation : nullptr);
}

void Dispatcher::Start(Live& live, const RoutePlan& plan, const RouteExplanation& explanation) {
  const RouteQuery query = QueryOf(live);
  live.split = !plan.whole();
  live.decode_has_spoken = false;
  live.decode_failure.reset();
  ++live.attempt;
  live.ending.prefill_worker = workers_.NameOf(plan.prefill);
  live.ending.decode_worker = workers_.NameOf(plan.decode);
  if (live.attempt == 1) {
    live.started = clock_.Monotonic();
    live.cached_charged = plan.cached_tokens;
    live.place.Charge(options_.cost.OfPrompt(query.prompt_tokens, plan.cached_tokens));
  }
  if (live.request.explain) {
    Touch(*live.request.sink);
    live.request.sink->Routed(
        live.request.id,
        ToText(explanation, fmt::format("attempt={} waited_ms={} ", live.attempt,
                                        absl::ToInt64Milliseconds(live.started - live.submitted))));
  }

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
  if (live.request.block_hashes != nullptr) {
    workers_.SentPrompt(plan.prefill, live.request.block_hashes, clock_.Monotonic());
  }
  frame.prompt_logprobs = live.request.prompt_logprobs;
  frame.block_hashes = live.request.block_hashes;
  StartLeg(
      live.first,
      live.split ? PrefillWork(query, plan.cached_tokens) : WholeWork(query, plan.cached_tokens),
      std::move(frame));
}

void Dispatcher::StartLeg(OpenLeg& leg, const Work& work, StartFrame frame) {
  leg.open = true;
  leg.grant = workers_.Take(leg.worker, work);
  workers_.Send(leg.worker, std::move(frame));
}

}  // namespace baleen::router
