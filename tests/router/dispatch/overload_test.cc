// Dispatch under more load than its workers can do, on a manual clock: what is served, what is
// refused and how soon, what tenants get, and how it recovers.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "proto/contract/status.h"
#include "router/dispatch/dispatcher.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using contract::Reason;

constexpr absl::Duration kStep = absl::Milliseconds(20);
constexpr double kPromptTokensPerSecond = 10'000;
constexpr std::uint32_t kReplyTokens = 50;
constexpr std::uint32_t kWorkers = 4;
constexpr std::uint32_t kSequencesMax = 8;

// What became of a request, and when.
struct Record {
  std::string tenant;
  std::uint32_t priority = 0;
  std::uint32_t prompt_tokens = 0;
  absl::Duration submitted;
  absl::Duration first_token = absl::InfiniteDuration();
  absl::Duration ended = absl::InfiniteDuration();
  std::uint32_t tokens = 0;
  absl::Status status;
  absl::Duration retry_after;
};

class RecordingSink final : public ReplySink {
 public:
  explicit RecordingSink(const Clock& clock) : clock_(clock) {}

  bool Token(contract::RequestId id, ReplyToken) override {
    Record& record = records[id.number];
    if (++record.tokens == 1) record.first_token = clock_.Monotonic();
    return true;
  }
  void End(contract::RequestId id, Ending ending) override {
    Record& record = records[id.number];
    record.ended = clock_.Monotonic();
    --inside[record.tenant];
    record.status = ending.status;
    record.retry_after = ending.retry_after;
  }

  std::map<std::uint64_t, Record> records;
  std::map<std::string, std::uint64_t> inside;  // by tenant

 private:
  const Clock& clock_;
};

// Mixed ranks: prompts one after the other, then a token for each sequence in each step.
class Cluster {
 public:
  Cluster() {
    for (std::uint64_t i = 0; i < kWorkers; ++i) {
      WorkerInfo info = MakeWorkerInfo("m-" + std::to_string(i), Role::kMixed);
      info.sequences_max = kSequencesMax;
      info.kv_blocks_total = 100'000;
      dispatcher_.OnAttached({i + 1}, std::make_shared<const WorkerInfo>(info), workers_[i].link);
    }
  }

  struct Spec {
    std::string tenant;
    std::uint32_t priority = contract::kPriorityDefault;
    std::uint32_t prompt_tokens = 100;
    absl::Duration wait = absl::InfiniteDuration();
  };
  void Submit(const Spec& spec) {
    const std::uint64_t number = ++submitted_;
    sink.records[number] = {.tenant = spec.tenant,
                            .priority = spec.priority,
                            .prompt_tokens = spec.prompt_tokens,
                            .submitted = clock.Monotonic()};
    ++sink.inside[spec.tenant];
    dispatcher_.Submit({.id = {1, number},
                        .model = "nano",
                        .prompt = std::make_shared<const TokenIds>(spec.prompt_tokens, 7),
                        .tokens_max = 64,
                        .tenant = spec.tenant,
                        .priority = spec.priority,
                        .deadline = clock.Monotonic() + spec.wait,
                        .sink = &sink});
  }

  // Submits as many as the tenant has fewer inside than `count`.
  void KeepInside(const Spec& spec, std::uint64_t count) {
    for (std::uint64_t i = sink.inside[spec.tenant]; i < count; ++i) Submit(spec);
  }

  void Step() {
    clock.Advance(kStep);
    for (std::uint64_t i = 0; i < kWorkers; ++i) StepWorker({i + 1}, workers_[i]);
    dispatcher_.Tick();
  }

  DispatchCounts counts() const { return dispatcher_.counts(); }
  // Requests that finished, ended in [from, to).
  double Finished(absl::Duration from, absl::Duration to) const {
    return static_cast<double>(std::ranges::count_if(sink.records, [=](const auto& entry) {
      const Record& record = entry.second;
      return record.status.ok() && record.ended >= from && record.ended < to;
    }));
  }

  ManualClock clock;
  RecordingSink sink{clock};

 private:
  struct Running {
    absl::Duration first_token_at;
    std::uint32_t sent = 0;
  };
  struct Worker {
    MemoryLink link;
    std::map<contract::RequestKey, Running> running;
    absl::Duration computes_until;
    std::size_t taken = 0;
  };

  void StepWorker(WorkerId id, Worker& worker) {
    const absl::Duration now = clock.Monotonic();
    for (; worker.taken < worker.link.frames.size(); ++worker.taken) {
      const RouterFrame& frame = worker.link.frames[worker.taken];
      if (const auto* start = std::get_if<StartFrame>(&frame)) {
        const double prompt = static_cast<double>(start->prompt->size());
        worker.computes_until =
            std::max(worker.computes_until, now) + absl::Seconds(prompt / kPromptTokensPerSecond);
        worker.running[start->key] = {.first_token_at = worker.computes_until};
      } else if (const auto* cancel = std::get_if<CancelFrame>(&frame)) {
        if (worker.running.erase(cancel->key) > 0) {
          dispatcher_.OnEnded(id, {.key = cancel->key, .reason = EndReason::kCancelled});
        }
      }
    }
    std::vector<TokenFrame> tokens;
    std::vector<contract::RequestKey> finished;
    for (auto& [key, running] : worker.running) {
      if (running.first_token_at > now) continue;
      tokens.push_back({.key = key, .sequence = running.sent++, .token = {.id = 3}});
      if (running.sent == kReplyTokens) finished.push_back(key);
    }
    dispatcher_.OnTokens(id, std::move(tokens));
    for (const contract::RequestKey& key : finished) worker.running.erase(key);
    const double pending_s =
        absl::ToDoubleSeconds(std::max(worker.computes_until - now, absl::ZeroDuration()));
    dispatcher_.OnLoad(
        id,
        {.sequences_running = static_cast<std::uint32_t>(worker.running.size()),
         .prompt_tokens_pending = static_cast<std::uint64_t>(pending_s * kPromptTokensPerSecond),
         .prompt_tokens_per_second = static_cast<float>(kPromptTokensPerSecond)});
    for (const contract::RequestKey& key : finished) {
      dispatcher_.OnEnded(id, {.key = key, .reason = EndReason::kStop, .tokens = kReplyTokens});
    }
  }

  std::uint64_t transfers_ = 0;
  Dispatcher dispatcher_{{}, clock, [this] { return ++transfers_; }};
  std::vector<Worker> workers_{kWorkers};
  std::uint64_t submitted_ = 0;
};

// Finished requests a second when there is always work and no deadline.
double PeakGoodput() {
  Cluster cluster;
  while (cluster.clock.Monotonic() < absl::Seconds(30)) {
    cluster.KeepInside({}, 48);
    cluster.Step();
  }
  return cluster.Finished(absl::Seconds(10), absl::Seconds(30)) / 20.0;
}

// Arrivals at a mean rate, at random times.
class Arrivals {
 public:
  explicit Arrivals(std::uint64_t seed) : random_(seed) {}
  std::uint32_t InOneStep(double per_second) {
    return std::poisson_distribution<std::uint32_t>(per_second *
                                                    absl::ToDoubleSeconds(kStep))(random_);
  }
  bool Chance(int percent) { return static_cast<int>(random_() % 100) < percent; }

 private:
  std::mt19937_64 random_;
};

TEST(Overload, TenTimesTheLoadServesAsMuchAsOnceAndRecovers) {
  const double peak = PeakGoodput();
  ASSERT_GT(peak, 20.0);
  for (const absl::Duration wait : {absl::Seconds(10), absl::Seconds(2), absl::Minutes(10)}) {
    SCOPED_TRACE("deadline " + absl::FormatDuration(wait));
    Cluster cluster;
    Arrivals arrivals(1);
    const auto offer = [&](absl::Duration until, double per_second) {
      while (cluster.clock.Monotonic() < until) {
        for (std::uint32_t i = arrivals.InOneStep(per_second); i > 0; --i) {
          cluster.Submit({.tenant = "t" + std::to_string(i % 3),
                          .priority = arrivals.Chance(2) ? 9u : contract::kPriorityDefault,
                          .wait = wait});
        }
        cluster.Step();
      }
    };
    const absl::Duration end = absl::Seconds(60);
    offer(end, 10 * peak);
    offer(end + absl::Seconds(30), 0.5 * peak);
    const double goodput = cluster.Finished(absl::Seconds(5), end) / 55.0;
    EXPECT_GE(goodput, 0.9 * peak);

    std::vector<absl::Duration> refused_after;
    std::uint32_t high = 0;
    std::uint32_t high_finished = 0;
    for (const auto& [number, record] : cluster.sink.records) {
      if (record.ended == absl::InfiniteDuration()) continue;
      // In the first seconds nothing has been measured yet.
      if (record.submitted >= absl::Seconds(5) &&
          contract::ReasonOf(record.status) == Reason::kQueueFull) {
        refused_after.push_back(record.ended - record.submitted);
      }
      if (record.priority == 9 && record.submitted < end - absl::Seconds(5)) {
        ++high;
        high_finished += record.status.ok() ? 1 : 0;
      }
    }
    ASSERT_GT(refused_after.size(), 1000u);
    std::ranges::sort(refused_after);
    EXPECT_LE(refused_after[refused_after.size() * 99 / 100 - 1], absl::Milliseconds(50))
        << "the ninety-ninth percentile";
    EXPECT_GE(high_finished, high * 99 / 100) << "of " << high << " of the highest priority";

    // After ten seconds of half the load nothing is refused, and everything is in time.
    EXPECT_EQ(cluster.counts().waiting, 0u);
    std::uint32_t after = 0;
    for (const auto& [number, record] : cluster.sink.records) {
      if (record.submitted < end + absl::Seconds(10) || record.ended == absl::InfiniteDuration()) {
        continue;
      }
      ++after;
      EXPECT_TRUE(record.status.ok()) << record.status;
      EXPECT_LT(record.first_token - record.submitted, absl::Milliseconds(500));
    }
    EXPECT_GT(after, 100u);
    RecordProperty("goodput", std::to_string(goodput / peak));
  }
}

TEST(Overload, ARefusalSaysWhenToComeBack) {
  Cluster cluster;
  while (cluster.clock.Monotonic() < absl::Seconds(10)) {
    cluster.KeepInside({}, 96);
    cluster.Step();
  }
  // About 64 requests wait, two seconds' worth, and then it would run for a second.
  cluster.Submit({.wait = absl::Seconds(2.5)});
  const Record& record = cluster.sink.records.rbegin()->second;
  ASSERT_EQ(contract::ReasonOf(record.status), Reason::kQueueFull) << record.status;
  EXPECT_GT(record.retry_after, absl::Seconds(0.5));
  EXPECT_LT(record.retry_after, absl::Seconds(5));
  cluster.Submit({.wait = absl::Seconds(30)});
  EXPECT_EQ(cluster.sink.records.rbegin()->second.ended, absl::InfiniteDuration()) << "it waits";
  cluster.Submit({.tenant = "other", .wait = absl::Seconds(2.5)});
  EXPECT_EQ(cluster.sink.records.rbegin()->second.ended, absl::InfiniteDuration())
      << "another tenant's turn comes sooner";
}

double ServiceOf(const Cluster& cluster, const std::string& tenant, absl::Duration from) {
  const ServiceCost cost;
  double service = 0;
  for (const auto& [number, record] : cluster.sink.records) {
    if (record.tenant != tenant || record.first_token < from || record.tokens == 0) continue;
    service += cost.OfPrompt(record.prompt_tokens, 0) + cost.reply_token * record.tokens;
  }
  return service;
}

TEST(Fairness, TwoTenantsThatFloodGetTheSameServiceWhateverTheirRequests) {
  Cluster cluster;
  const absl::Duration from = absl::Seconds(5);
  while (cluster.clock.Monotonic() < absl::Seconds(65)) {
    // More than all ranks take at once: so both always have something waiting.
    cluster.KeepInside({.tenant = "long", .prompt_tokens = 800}, 40);
    cluster.KeepInside({.tenant = "short", .prompt_tokens = 20}, 40);
    cluster.Step();
  }
  const double of_long = ServiceOf(cluster, "long", from);
  const double of_short = ServiceOf(cluster, "short", from);
  // max(longest prompt, 2 x tokens that all running requests can get), twice.
  const double bound = 2 * std::max(800.0, 2.0 * kWorkers * kSequencesMax * 64);
  EXPECT_LE(std::abs(of_long - of_short), bound);
  EXPECT_GT(of_long, 5 * bound);
}

TEST(Fairness, AFloodDoesNotKeepSmallTenantsWaiting) {
  Cluster cluster;
  Arrivals arrivals(2);
  while (cluster.clock.Monotonic() < absl::Seconds(60)) {
    cluster.KeepInside({.tenant = "flood", .prompt_tokens = 300}, 100);
    for (const std::string tenant : {"a", "b", "c"}) {
      for (std::uint32_t i = arrivals.InOneStep(2.0); i > 0; --i) {
        cluster.Submit({.tenant = tenant, .prompt_tokens = 50, .wait = absl::Seconds(5)});
      }
    }
    cluster.Step();
  }
  std::vector<absl::Duration> first_tokens;
  std::uint32_t failed = 0;
  for (const auto& [number, record] : cluster.sink.records) {
    if (record.tenant == "flood" || record.ended == absl::InfiniteDuration()) continue;
    failed += record.status.ok() ? 0 : 1;
    first_tokens.push_back(record.first_token - record.submitted);
  }
  ASSERT_GT(first_tokens.size(), 200u);
  EXPECT_EQ(failed, 0u);
  std::ranges::sort(first_tokens);
  // Sequences come free in bursts, at most a run of one second apart; the flood itself waits for
  // two.
  EXPECT_LT(first_tokens[first_tokens.size() * 99 / 100], absl::Milliseconds(1100));
}

}  // namespace
}  // namespace baleen::router
