// Dispatch under random faults: workers that crash and come back, streams that delay each other,
// duplicates, stale frames, refusals, failed transfers, cancels and deadlines. Simulated workers
// speak the protocol; every token is checked against an oracle.
//
// Invariants: one ending for each request (I1), tokens in order without gaps (I2) and equal to the
// oracle (I3), nothing after the ending (I4), usage equals what was delivered (I5), nothing left at
// the end (I6), and everything ends once the faults stop (I9). A failure prints the seed that
// replays it.
#include <gtest/gtest.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "observability/base/log.h"
#include "proto/contract/status.h"
#include "router/dispatch/dispatcher.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using contract::Reason;
using contract::RequestKey;

constexpr std::uint64_t kRouter = 7;

using Random = std::mt19937_64;

bool Chance(Random& random, int percent) { return static_cast<int>(random() % 100) < percent; }

// Token i of a request, and its length: functions of what a real worker would compute them from.
std::int32_t OracleToken(std::uint64_t seed, std::uint32_t index) {
  std::uint64_t x = seed * 0x9e3779b97f4a7c15ULL + index;
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9ULL;
  return static_cast<std::int32_t>((x >> 40) & 0x1ff);
}

std::uint32_t NaturalLength(std::uint64_t seed) {
  return 1 + static_cast<std::uint32_t>(seed % 13);
}

struct Reply {
  std::uint32_t tokens = 0;
  EndReason reason = EndReason::kStop;
};

Reply OracleReply(std::uint64_t seed, std::uint32_t tokens_max) {
  const std::uint32_t natural = NaturalLength(seed);
  return natural <= tokens_max ? Reply{natural, EndReason::kStop}
                               : Reply{tokens_max, EndReason::kLength};
}

// Which transfers have been handed over, and whose sender is gone: what the data plane would tell
// the decode rank.
struct DataPlane {
  std::set<std::uint64_t> complete;
  std::set<std::uint64_t> broken;
  std::set<std::uint64_t> withdrawn;
};

// A rank as the contract describes it, one step at a time. What it says waits in `out` until the
// network takes it.
class SimWorker {
 public:
  SimWorker(DataPlane& plane, Random& random) : plane_(plane), random_(random) {}

  void Take(const RouterFrame& frame) {
    if (const auto* start = std::get_if<StartFrame>(&frame)) {
      if (Chance(random_, 5)) {
        out.push_back(Error(start->key, contract::MakeStatus(Reason::kQueueFull, "refused")));
        return;
      }
      legs_[start->key] = {*start};
    } else if (const auto* cancel = std::get_if<CancelFrame>(&frame)) {
      Withdraw(cancel->key);
    } else if (const auto* release = std::get_if<ReleaseFrame>(&frame)) {
      Withdraw(release->key);
    }
  }

  void Step() {
    for (auto it = legs_.begin(); it != legs_.end();) {
      it = StepLeg(it->second) ? legs_.erase(it) : std::next(it);
    }
  }

  // Its transfers will never complete.
  void BreakTransfers() {
    for (const auto& [key, leg] : legs_) {
      if (leg.start.leg == Leg::kPrefill) plane_.broken.insert(leg.start.transfer.value);
    }
  }

  std::size_t legs() const { return legs_.size(); }

  std::deque<std::variant<TokenFrame, EndedFrame>> out;

 private:
  struct SimLeg {
    StartFrame start;
    std::uint32_t emitted = 0;
  };

  static EndedFrame Error(const RequestKey& key, absl::Status status) {
    return {.key = key, .reason = EndReason::kError, .status = std::move(status)};
  }

  void Withdraw(const RequestKey& key) {
    const auto it = legs_.find(key);
    if (it == legs_.end()) return;
    out.push_back(
        EndedFrame{.key = key, .reason = EndReason::kCancelled, .tokens = it->second.emitted});
    legs_.erase(it);
  }

  void Emit(SimLeg& leg, std::uint32_t sequence) {
    const TokenFrame token{.key = leg.start.key,
                           .sequence = sequence,
                           .token = {.id = OracleToken(leg.start.sampling.seed, sequence)}};
    out.push_back(token);
    ++leg.emitted;
    if (Chance(random_, 3)) out.push_back(token);
    if (Chance(random_, 3) && token.key.attempt > 1) {
      TokenFrame stale = token;
      --stale.key.attempt;
      stale.token.id = 511;
      out.push_back(stale);
    }
  }

  // True when the leg has ended.
  bool StepLeg(SimLeg& leg) {
    if (Chance(random_, 40)) return false;  // not its turn
    const Reply reply = OracleReply(leg.start.sampling.seed, leg.start.tokens_max);
    const std::uint64_t transfer = leg.start.transfer.value;
    const RequestKey key = leg.start.key;
    switch (leg.start.leg) {
      case Leg::kWhole:
        Emit(leg, leg.emitted);
        return EndIf(leg.emitted == reply.tokens, {key, reply.reason, leg.emitted});
      case Leg::kPrefill:
        if (leg.emitted == 0) {
          Emit(leg, 0);
          // A transfer that was under way is withdrawn, which the decode rank may be first to say.
          if (reply.tokens == 1 && Chance(random_, 50)) plane_.withdrawn.insert(transfer);
          return EndIf(reply.tokens == 1, {key, reply.reason, 1});
        }
        if (Chance(random_, 5)) {
          plane_.broken.insert(transfer);
          EndedFrame failed = Error(key, contract::MakeStatus(Reason::kTransferFailed, "refused"));
          failed.tokens = 1;
          return EndIf(true, std::move(failed));
        }
        plane_.complete.insert(transfer);
        return EndIf(
            true,
            {.key = key, .reason = EndReason::kHandedOver, .tokens = 1, .kv_transfer_bytes = 64});
      case Leg::kDecode:
        if (plane_.broken.contains(transfer)) {
          return EndIf(true, Error(key, contract::MakeStatus(Reason::kTransferFailed, "no KV")));
        }
        if (plane_.withdrawn.contains(transfer)) {
          return EndIf(true, {.key = key, .reason = EndReason::kCancelled});
        }
        if (!plane_.complete.contains(transfer)) return false;
        Emit(leg, 1 + leg.emitted);
        return EndIf(1 + leg.emitted == reply.tokens, {key, reply.reason, leg.emitted});
    }
    return false;
  }

  bool EndIf(bool ended, EndedFrame frame) {
    if (ended) out.push_back(std::move(frame));
    return ended;
  }

  DataPlane& plane_;
  Random& random_;
  std::map<RequestKey, SimLeg> legs_;
};

// Checks what the seam promises beyond the twin: a flush after each event for whoever was given
// something, and the reason of a route before the first token.
class CheckedSink final : public ReplySink {
 public:
  explicit CheckedSink(MemorySink& inner) : inner_(inner) {}

  bool Token(contract::RequestId id, ReplyToken token) override {
    dirty_ = true;
    if (explained_.contains(id.number)) {
      EXPECT_GE(explained_[id.number], 1) << "started without a word of why";
    }
    return inner_.Token(id, std::move(token));
  }
  void End(contract::RequestId id, Ending ending) override {
    dirty_ = true;
    inner_.End(id, std::move(ending));
  }
  void Routed(contract::RequestId id, std::string explanation) override {
    dirty_ = true;
    EXPECT_TRUE(explained_.contains(id.number)) << "nobody asked";
    EXPECT_TRUE(inner_.tokens[id.number].empty()) << "after the first token";
    EXPECT_LE(explanation.size(), kExplanationBytesMax);
    ++explained_[id.number];
  }
  void Flush() override {
    EXPECT_TRUE(dirty_) << "a wake-up for nothing";
    dirty_ = false;
  }

  void Expect(std::uint64_t number) { explained_[number] = 0; }
  bool dirty() const { return dirty_; }

 private:
  MemorySink& inner_;
  std::map<std::uint64_t, int> explained_;  // those that are to be, and how often they were
  bool dirty_ = false;
};

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed) {
    roles_ = {Role::kPrefill, Role::kPrefill, Role::kDecode, Role::kDecode};
    if (Chance(random_, 50)) roles_.push_back(Role::kMixed);
    nodes_.resize(roles_.size());
    for (std::size_t i = 0; i < nodes_.size(); ++i) Attach(i);
  }

  void Run() {
    for (int step = 0; step < 400; ++step) {
      if (Chance(random_, 25)) Submit();
      if (submitted_ > 0 && Chance(random_, 3)) Cancel(1 + random_() % submitted_);
      if (Chance(random_, 1)) {
        dispatcher_.CancelLowest(1, contract::MakeStatus(Reason::kQueueFull, "short of memory"));
      }
      if (Chance(random_, 2)) Crash(random_() % nodes_.size());
      if (Chance(random_, 20)) AttachOneThatIsDown();
      Advance();
      if (::testing::Test::HasFailure()) return;
    }
    for (int step = 0; step < 400; ++step) {
      AttachOneThatIsDown();
      Advance();
    }
    CheckEverythingEnded();
  }

  std::uint64_t finished() const { return finished_; }

 private:
  struct Node {
    WorkerId id;  // 0: down
    std::unique_ptr<SimWorker> worker;
    std::unique_ptr<MemoryLink> link;
    std::size_t taken = 0;  // frames of the link that have arrived
  };

  void Attach(std::size_t index) {
    Node& node = nodes_[index];
    node = {.id = {++ids_},
            .worker = std::make_unique<SimWorker>(plane_, random_),
            .link = std::make_unique<MemoryLink>()};
    WorkerInfo info = MakeWorkerInfo("w-" + std::to_string(index), roles_[index]);
    info.sequences_max = 4;
    dispatcher_.OnAttached(node.id, std::make_shared<const WorkerInfo>(info), *node.link);
  }

  void AttachOneThatIsDown() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (nodes_[i].id.value != 0) continue;
      Attach(i);
      return;
    }
  }

  void Crash(std::size_t index) {
    Node& node = nodes_[index];
    if (node.id.value == 0) return;
    node.worker->BreakTransfers();
    dispatcher_.OnLost(node.id, "crashed");
    node = {};
  }

  void Submit() {
    const std::uint64_t number = ++submitted_;
    const auto tokens_max = static_cast<std::uint32_t>(1 + random_() % 12);
    const std::uint64_t seed = random_();
    asked_[number] = {seed, tokens_max};
    const bool explain = Chance(random_, 10);
    if (explain) checked_.Expect(number);
    auto hashes = std::make_shared<BlockHashes>();
    for (std::uint64_t i = random_() % 4; i > 0; --i) hashes->push_back(AnyHash());
    dispatcher_.Submit({.id = {kRouter, number},
                        .model = "nano",
                        .prompt = std::make_shared<const TokenIds>(1 + random_() % 200, 3),
                        .sampling = {.seed = seed},
                        .tokens_max = tokens_max,
                        .block_hashes = hashes,
                        .tenant = "tenant-" + std::to_string(random_() % 4),
                        .priority = static_cast<std::uint32_t>(random_() % 10),
                        .explain = explain,
                        .deadline = Chance(random_, 20)
                                        ? clock_.Monotonic() + absl::Milliseconds(random_() % 900)
                                        : absl::InfiniteDuration(),
                        .sink = &checked_});
    EXPECT_FALSE(checked_.dirty());
  }

  contract::BlockHash AnyHash() {
    contract::BlockHash hash;
    hash.bytes[0] = static_cast<std::uint8_t>(random_() % 8);
    return hash;
  }

  void Cancel(std::uint64_t number) {
    dispatcher_.Cancel({kRouter, number});
    EXPECT_TRUE(sink_.endings.contains(number)) << "a cancelled request has ended";
  }

  // A moment passes: workers step, and each stream moves some of its frames.
  void Advance() {
    clock_.Advance(absl::Milliseconds(5));
    dispatcher_.Tick();
    for (Node& node : nodes_) {
      if (node.id.value == 0) continue;
      while (node.taken < node.link->frames.size() && Chance(random_, 70)) {
        node.worker->Take(node.link->frames[node.taken++]);
      }
      node.worker->Step();
      while (!node.worker->out.empty() && Chance(random_, 70)) Deliver(node);
      if (Chance(random_, 20)) {
        dispatcher_.OnCacheEvents(node.id, {.cleared = Chance(random_, 10),
                                            .stored = {AnyHash(), AnyHash()},
                                            .evicted = {AnyHash()}});
      }
      if (Chance(random_, 30)) {
        dispatcher_.OnLoad(node.id,
                           {.sequences_running = static_cast<std::uint32_t>(node.worker->legs())});
      }
    }
  }

  void Deliver(Node& node) {
    auto frame = std::move(node.worker->out.front());
    node.worker->out.pop_front();
    if (auto* token = std::get_if<TokenFrame>(&frame)) {
      dispatcher_.OnTokens(node.id, {std::move(*token)});
    } else {
      dispatcher_.OnEnded(node.id, std::get<EndedFrame>(std::move(frame)));
    }
    EXPECT_FALSE(checked_.dirty()) << "each event ends with a flush";
  }

  void CheckEverythingEnded() {
    for (std::uint64_t number = 1; number <= submitted_; ++number) CheckRequest(number);
    const DispatchCounts counts = dispatcher_.counts();
    EXPECT_EQ(counts.running + counts.waiting + counts.closing, 0u);
    for (const WorkerView& worker : dispatcher_.view().workers) EXPECT_EQ(worker.own, Work{});
    for (const Node& node : nodes_) {
      EXPECT_EQ(node.worker->legs(), 0u) << "a worker still works for nobody";
    }
  }

  void CheckRequest(std::uint64_t number) {
    const auto it = sink_.endings.find(number);
    ASSERT_NE(it, sink_.endings.end()) << "request " << number << " never ended";
    const Ending& ending = it->second;
    const auto& [seed, tokens_max] = asked_.at(number);
    const std::vector<std::int32_t> ids = sink_.Ids(number);
    for (std::uint32_t i = 0; i < ids.size(); ++i) {
      ASSERT_EQ(ids[i], OracleToken(seed, i)) << "token " << i << " of request " << number;
    }
    if (ending.status.ok()) {
      ++finished_;
      const Reply reply = OracleReply(seed, tokens_max);
      EXPECT_EQ(ids.size(), reply.tokens) << "request " << number;
      EXPECT_EQ(ending.finish == FinishReason::kStop, reply.reason == EndReason::kStop);
    } else {
      const auto reason = contract::ReasonOf(ending.status);
      ASSERT_TRUE(reason.has_value()) << ending.status;
      EXPECT_NE(*reason, Reason::kInternal) << ending.status;
    }
  }

  Random random_;
  ManualClock clock_;
  DataPlane plane_;
  MemorySink sink_;
  CheckedSink checked_{sink_};
  Dispatcher dispatcher_{{}, clock_, [this] { return ++transfers_; }};
  std::vector<Role> roles_;
  std::vector<Node> nodes_;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint32_t>> asked_;  // seed, tokens_max
  std::uint64_t transfers_ = 0;
  std::uint64_t ids_ = 0;
  std::uint64_t submitted_ = 0;
  std::uint64_t finished_ = 0;
};

TEST(DispatcherRandom, KeepsItsInvariantsWhateverFails) {
  constexpr std::uint64_t kSeeds = 150;
  log::Init("test", log::Format::kText, log::Level::kError);
  std::uint64_t finished = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation simulation(seed);
    simulation.Run();
    finished += simulation.finished();
    if (HasFailure()) return;
  }
  EXPECT_GT(finished, kSeeds * 30) << "faults must not be all that happens";
}

}  // namespace
}  // namespace baleen::router
