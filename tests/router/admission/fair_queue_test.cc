// The order of those that wait: by hand, and the bound of the virtual token counters under random
// load.
#include "router/admission/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace baleen::router {
namespace {

using ::testing::ElementsAre;

constexpr std::uint32_t kBand = contract::kPriorityDefault;

class FairQueueTest : public ::testing::Test {
 protected:
  void Enter(std::uint64_t number, const std::string& tenant, std::uint32_t priority = kBand,
             std::uint64_t work = 100) {
    places_[number] = queue_.Enter(
        tenant, priority, {.number = number, .work = work, .since = absl::Seconds(number)});
  }

  // Starts the head, which costs its tenant so much. Returns its number; 0: nobody waits.
  std::uint64_t Start(double cost = 100) {
    const FairQueue::Waiting* head = queue_.Head();
    if (head == nullptr) return 0;
    const std::uint64_t number = head->number;
    queue_.StopWaiting(places_.at(number));
    places_.at(number).Charge(cost);
    return number;
  }

  std::vector<std::uint64_t> StartAll() {
    std::vector<std::uint64_t> order;
    while (const std::uint64_t number = Start()) order.push_back(number);
    return order;
  }

  FairQueue queue_;
  std::map<std::uint64_t, FairQueue::Place> places_;
};

TEST_F(FairQueueTest, OneTenantIsServedInTheOrderOfComing) {
  for (std::uint64_t number : {1, 2, 3}) Enter(number, "a");
  EXPECT_EQ(queue_.size(), 3u);
  EXPECT_THAT(StartAll(), ElementsAre(1, 2, 3));
  EXPECT_EQ(queue_.Head(), nullptr);
  EXPECT_EQ(queue_.size(), 0u);
}

TEST_F(FairQueueTest, HigherBandsGoFirstWhateverTheyWereServed) {
  Enter(1, "a", 0);
  Enter(2, "a", 5);
  Enter(3, "b", 9);
  Enter(4, "b", 9);
  EXPECT_THAT(StartAll(), ElementsAre(3, 4, 2, 1));
}

TEST_F(FairQueueTest, TenantsTakeTurnsByServiceNotByRequests) {
  for (std::uint64_t number : {1, 2, 3, 4}) Enter(number, "many");
  Enter(5, "few");
  Enter(6, "few");
  EXPECT_EQ(Start(300), 1u);
  EXPECT_EQ(Start(100), 5u);
  EXPECT_EQ(Start(150), 6u);
  EXPECT_THAT(StartAll(), ElementsAre(2, 3, 4));
}

TEST_F(FairQueueTest, ATenantThatComesBackHasSavedNothingUp) {
  Enter(1, "busy");
  Enter(2, "idle");
  EXPECT_EQ(Start(0), 1u);
  EXPECT_EQ(Start(0), 2u);
  places_.at(1).Charge(1000);  // while it is alone
  Enter(3, "busy");
  Enter(4, "busy");
  Enter(5, "idle");
  Enter(6, "idle");
  EXPECT_EQ(queue_.Served("idle", kBand), 1000.0) << "lifted to the smallest that waits";
  EXPECT_THAT(StartAll(), ElementsAre(3, 5, 4, 6));
}

TEST_F(FairQueueTest, LiftedToTheLastThatWaitedWhenNobodyDoes) {
  Enter(1, "a");
  EXPECT_EQ(Start(700), 1u);
  Enter(2, "b");
  EXPECT_EQ(queue_.Served("b", kBand), 700.0);
}

TEST_F(FairQueueTest, DebtIsNotForgottenByGoingAway) {
  Enter(1, "a");
  Enter(2, "b");
  EXPECT_EQ(Start(900), 1u);
  queue_.Leave(places_.at(1));
  Enter(3, "a");
  Enter(4, "b");
  EXPECT_THAT(StartAll(), ElementsAre(2, 4, 3));
}

TEST_F(FairQueueTest, ALargeRequestIsPassedOnlyByThoseServedLess) {
  Enter(1, "large", kBand, 100'000);
  Enter(2, "large", kBand, 10);
  std::uint64_t number = 2;
  int passed = 0;
  // It finds no room; a tenant that comes for the first time has as little service and came later.
  Enter(++number, "small");
  EXPECT_EQ(queue_.Head()->number, 1u);
  places_.at(1).Charge(50);  // its tenant is served elsewhere: now the other one has less
  while (queue_.Head()->number != 1) {
    Enter(++number, "small");
    Start(10);
    ASSERT_LT(++passed, 10);
  }
  EXPECT_EQ(passed, 5) << "until it has been served as much";
}

TEST_F(FairQueueTest, WorkBeforeARequestIsThatOfItsTurn) {
  Enter(1, "a", kBand, 100);
  Enter(2, "a", kBand, 100);
  Enter(3, "b", kBand, 10'000);
  Enter(4, "c", 9, 7);
  Enter(5, "d", 0, 5000);
  EXPECT_EQ(queue_.WorkBefore(places_.at(1)), 7u + 100u);
  EXPECT_EQ(queue_.WorkBefore(places_.at(2)), 7u + 100u + 200u) << "b gets as much as a meanwhile";
  EXPECT_EQ(queue_.WorkBefore(places_.at(4)), 0u);
  EXPECT_EQ(queue_.WorkBefore(places_.at(5)), 7u + 10'200u);
}

TEST_F(FairQueueTest, SaysWhoHasWaitedLong) {
  Enter(1, "a");
  Enter(2, "b");
  Enter(3, "a");
  EXPECT_THAT(queue_.WaitingSince(absl::Seconds(2)), ::testing::UnorderedElementsAre(1, 2));
  EXPECT_TRUE(queue_.WaitingSince(absl::Milliseconds(999)).empty());
}

TEST_F(FairQueueTest, LeavingTakesOutWhatWaits) {
  Enter(1, "a");
  Enter(2, "a");
  Enter(3, "a");
  queue_.Leave(places_.at(2));
  queue_.Leave(places_.at(2));  // no effect
  EXPECT_EQ(queue_.size(), 2u);
  EXPECT_THAT(StartAll(), ElementsAre(1, 3));
}

TEST(FairQueue, RemembersABoundedNumberOfTenants) {
  FairQueue queue(10);
  std::uint64_t number = 0;
  const auto pass = [&](const std::string& tenant, double cost) {
    FairQueue::Place place = queue.Enter(tenant, kBand, {.number = ++number, .work = 1});
    queue.StopWaiting(place);
    place.Charge(cost);
    queue.Leave(place);
  };
  FairQueue::Place waits = queue.Enter("waits", kBand, {.number = ++number, .work = 1});
  pass("debtor", 1e9);
  for (int i = 0; i < 1000; ++i) pass("t" + std::to_string(i), 1);
  EXPECT_EQ(queue.Served("debtor", kBand), 1e9) << "the debt is what must be remembered";
  EXPECT_EQ(queue.Served("t3", kBand), 0.0);
  queue.Leave(waits);
}

// Ranks that take whatever fits, in the order of the queue, and give each running request a token
// in each step.
class Load {
 public:
  static constexpr int kTenants = 6;
  static constexpr std::uint32_t kPromptMax = 400;
  static constexpr std::uint32_t kReplyMax = 100;
  static constexpr std::uint64_t kCapacity = 3000;  // prompt and reply tokens of all that run

  explicit Load(std::uint64_t seed) : random_(seed) {}
  ~Load() {
    for (auto& [number, request] : waiting_) queue_.Leave(request.place);
    for (Request& request : running_) queue_.Leave(request.place);
  }

  void Step() {
    // Tenants 0 to 2 always have something waiting; the others come and go.
    for (int tenant = 0; tenant < kTenants; ++tenant) {
      const bool always = tenant < 3;
      while (always && waits_[static_cast<std::size_t>(tenant)] < 3) Ask(tenant);
      for (std::uint64_t i = always || random_() % 40 != 0 ? 0 : random_() % 8; i > 0; --i) {
        Ask(tenant);
      }
    }
    StartWhatFits();
    for (Request& request : running_) Charge(request, cost_.reply_token);
    std::erase_if(running_, [this](Request& request) {
      if (--request.left > 0 && random_() % 50 != 0) return false;
      used_ -= request.work;
      queue_.Leave(request.place);
      return true;
    });
  }

  // Between the counters of those that wait.
  double Gap() const {
    double least = 1e300;
    double most = 0;
    for (int tenant = 0; tenant < kTenants; ++tenant) {
      if (waits_[static_cast<std::size_t>(tenant)] == 0) continue;
      least = std::min(least, queue_.Served(Name(tenant), kBand));
      most = std::max(most, queue_.Served(Name(tenant), kBand));
    }
    return most - least;
  }
  double Bound() const {
    return std::max(cost_.prompt_token * kPromptMax, cost_.reply_token * kCapacity);
  }

  const std::vector<double>& served() const { return served_; }

 private:
  struct Request {
    int tenant = 0;
    std::uint32_t prompt = 0;
    std::uint32_t left = 0;  // reply tokens
    std::uint64_t work = 0;
    FairQueue::Place place;
  };

  static std::string Name(int tenant) { return "t" + std::to_string(tenant); }

  void Ask(int tenant) {
    // They differ: the first asks for long prompts, the second for long replies.
    const auto prompt = static_cast<std::uint32_t>(tenant == 0 ? kPromptMax : 1 + random_() % 80);
    const auto reply = static_cast<std::uint32_t>(tenant == 1 ? kReplyMax : 1 + random_() % 30);
    ++number_;
    waiting_[number_] = {tenant, prompt, reply, prompt + std::uint64_t{reply},
                         queue_.Enter(Name(tenant), kBand, {.number = number_, .work = prompt})};
    ++waits_[static_cast<std::size_t>(tenant)];
  }

  void StartWhatFits() {
    while (const FairQueue::Waiting* head = queue_.Head()) {
      const auto it = waiting_.find(head->number);
      Request& request = it->second;
      if (used_ + request.work > kCapacity) return;  // nothing passes it
      queue_.StopWaiting(request.place);
      Charge(request, cost_.OfPrompt(request.prompt, 0));
      used_ += request.work;
      --waits_[static_cast<std::size_t>(request.tenant)];
      running_.push_back(request);
      waiting_.erase(it);
    }
  }

  void Charge(Request& request, double cost) {
    request.place.Charge(cost);
    served_[static_cast<std::size_t>(request.tenant)] += cost;
  }

  const ServiceCost cost_;
  std::mt19937_64 random_;
  FairQueue queue_;
  std::map<std::uint64_t, Request> waiting_;
  std::vector<Request> running_;
  std::array<int, kTenants> waits_ = {};
  std::vector<double> served_ = std::vector<double>(kTenants);
  std::uint64_t used_ = 0;
  std::uint64_t number_ = 0;
};

// The theorem of the paper (4.4): counters of tenants that wait differ by at most the larger of the
// cost of the longest prompt and of the tokens that all running requests can still be given, and so
// the service of two that wait all the time by twice that.
TEST(FairQueue, CountersOfThoseThatWaitStayWithinTheBound) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Load load(seed);
    std::vector<double> before;
    for (int step = 0; step < 3000; ++step) {
      load.Step();
      ASSERT_LE(load.Gap(), load.Bound()) << "step " << step;
      if (step == 500) before = load.served();
    }
    const auto got = [&](std::size_t tenant) { return load.served()[tenant] - before[tenant]; };
    const auto [low, high] = std::minmax({got(0), got(1), got(2)});
    EXPECT_LE(high - low, 2 * load.Bound());
    EXPECT_GT(low, 2 * load.Bound()) << "long enough for the bound to mean something";
  }
}

}  // namespace
}  // namespace baleen::router
