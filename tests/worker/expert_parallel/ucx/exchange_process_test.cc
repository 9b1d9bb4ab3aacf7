// Groups of processes over UCX: killed and stopped at every call of a step, and idle.
#include <gmock/gmock.h>

#include <memory>
#include <random>
#include <sstream>

#include "tests/worker/expert_parallel/ucx/exchange_processes.h"

namespace baleen::worker {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

constexpr int kWaitMs = 400;

struct GroupOptions {
  int ranks = 3;
  std::uint64_t steps = 20;
  int wait_ms = 20'000;
  bool share_memory = true;
};

class Group {
 public:
  // `last` of rank `which` are the words that follow.
  Group(const GroupOptions& options, int which, std::vector<std::string> last) {
    for (int rank = 0; rank < options.ranks; ++rank) {
      std::vector<std::string> command = {EXCHANGE_PEER,
                                          std::to_string(rank),
                                          std::to_string(options.ranks),
                                          std::to_string(options.steps),
                                          "20",
                                          std::to_string(options.wait_ms),
                                          options.share_memory ? "memory" : "messages"};
      if (rank == which || which < 0) command.insert(command.end(), last.begin(), last.end());
      ranks_.push_back(std::make_unique<ExchangeProcess>(std::move(command)));
    }
    std::vector<std::string> addresses;
    for (const auto& rank : ranks_) addresses.push_back(rank->Await("address "));
    for (const auto& rank : ranks_) {
      for (const std::string& address : addresses) rank->Tell(address);
    }
    for (const auto& rank : ranks_) rank->Await("connected");
  }

  ExchangeProcess& operator[](int rank) { return *ranks_[rank]; }

 private:
  std::vector<std::unique_ptr<ExchangeProcess>> ranks_;
};

struct End {
  std::int64_t ns = 0;
  std::string status;
};

End EndOf(ExchangeProcess& rank) {
  std::istringstream line(rank.Await("end "));
  End end;
  line >> end.ns;
  std::getline(line >> std::ws, end.status);
  return end;
}

// One rank of three kills or stops itself, at a step and call that the seed chooses.
struct Fault {
  Fault(const std::string& what, int seed) : random(seed) {
    victim = static_cast<int>(random() % 3);
    step = random() % 10 + 1;
    call = static_cast<int>(random() % 5);
    words = {what, std::to_string(step), std::to_string(call)};
  }
  std::mt19937 random;
  int victim;
  std::uint64_t step;
  int call;
  std::vector<std::string> words;
};

constexpr char kPhases[] = "(step barrier|dispatch|combine)";

TEST(ExchangeProcesses, AKilledRankIsNamedWithThePhaseInHalfASecond) {
  for (int seed = 0; seed < 25; ++seed) {
    const Fault fault("die", seed);
    SCOPED_TRACE("seed " + std::to_string(seed));
    Group group({.share_memory = seed % 2 == 0}, fault.victim, fault.words);
    const std::int64_t died_ns = std::stoll(group[fault.victim].Await("dying "));
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == fault.victim) continue;
      const End end = EndOf(group[rank]);
      EXPECT_THAT(end.status,
                  ContainsRegex("UNAVAILABLE: all-to-all: rank " + std::to_string(fault.victim) +
                                " has gone, in the " + kPhases));
      EXPECT_LT(end.ns - died_ns, 500'000'000);
      EXPECT_TRUE(group[rank].Ends());
    }
  }
}

TEST(ExchangeProcesses, AStoppedRankIsNamedWhenTheWaitIsOver) {
  for (int seed = 0; seed < 25; ++seed) {
    const Fault fault("stop", 1000 + seed);
    SCOPED_TRACE("seed " + std::to_string(seed));
    Group group({.wait_ms = kWaitMs, .share_memory = seed % 2 == 0}, fault.victim, fault.words);
    const std::int64_t stopped_ns = std::stoll(group[fault.victim].Await("dying "));
    for (int rank = 0; rank < 3; ++rank) {
      if (rank == fault.victim) continue;
      const End end = EndOf(group[rank]);
      EXPECT_THAT(end.status,
                  ContainsRegex("DEADLINE_EXCEEDED: all-to-all: .*waited 400ms for rank " +
                                std::to_string(fault.victim) + ".* in the " + kPhases));
      EXPECT_LT(end.ns - stopped_ns, 2 * kWaitMs * std::int64_t{1'000'000});
      EXPECT_TRUE(group[rank].Ends());
    }
  }
}

TEST(ExchangeProcesses, AnIdleGroupSleeps) {
  constexpr int kIdleMs = 3'000;
  for (const bool share_memory : {true, false}) {
    Group group({.ranks = 2, .share_memory = share_memory}, -1, {"idle", std::to_string(kIdleMs)});
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_LT(std::stod(group[rank].Await("cpu ")), 0.02 * kIdleMs / 1000);
      EXPECT_EQ(EndOf(group[rank]).status, "OK") << "it wakes and works";
    }
  }
}

}  // namespace
}  // namespace baleen::worker
