// Tokens a minute of a tenant.
#include "router/access/token_budget.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

namespace baleen::router {
namespace {

Caller CallerOf(const std::string& tenant, std::uint64_t tokens_per_minute) {
  return {.tenant = tenant, .tokens_per_minute = tokens_per_minute};
}

TEST(TokenBudget, IsAMinutesTokensAndFillsAllTheTime) {
  ManualClock clock;
  TokenBudget budget(clock);
  const Caller caller = CallerOf("a", 600);
  EXPECT_EQ(budget.Charge(caller, 500), std::nullopt);
  EXPECT_EQ(budget.Charge(caller, 200), absl::Seconds(10)) << "100 are missing at 10 a second";
  EXPECT_EQ(budget.Charge(caller, 100), std::nullopt) << "a refusal takes nothing";
  clock.Advance(absl::Seconds(10));
  EXPECT_EQ(budget.Charge(caller, 100), std::nullopt);
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(budget.Charge(caller, 600), std::nullopt);
  EXPECT_NE(budget.Charge(caller, 1), std::nullopt) << "it holds no more than a minute's";
}

TEST(TokenBudget, GetsBackWhatWasNotUsed) {
  ManualClock clock;
  TokenBudget budget(clock);
  const Caller caller = CallerOf("a", 600);
  EXPECT_EQ(budget.Charge(caller, 600), std::nullopt);
  budget.Refund(caller, 400);
  EXPECT_EQ(budget.Charge(caller, 400), std::nullopt);
  EXPECT_NE(budget.Charge(caller, 1), std::nullopt);
  budget.Refund(caller, 10'000);
  EXPECT_EQ(budget.Charge(caller, 600), std::nullopt);
  EXPECT_NE(budget.Charge(caller, 1), std::nullopt) << "a refund fills it no higher than full";
}

// With a longest reply of 4,096 tokens by default, a small budget would otherwise refuse every
// request for ever.
TEST(TokenBudget, ARequestLargerThanAMinuteIsPaidFromTheMinutesAfterIt) {
  ManualClock clock;
  TokenBudget budget(clock);
  const Caller caller = CallerOf("a", 600);
  EXPECT_EQ(budget.Charge(caller, 1800), std::nullopt);
  EXPECT_EQ(budget.Charge(caller, 1), absl::Seconds(120.1));
  budget.Refund(caller, 1200);
  EXPECT_EQ(budget.Charge(caller, 600), absl::Minutes(1));
  clock.Advance(absl::Minutes(1));
  EXPECT_EQ(budget.Charge(caller, 600), std::nullopt);
}

TEST(TokenBudget, IsOfTheTenantAndOfNobodyElse) {
  ManualClock clock;
  TokenBudget budget(clock);
  EXPECT_EQ(budget.Charge(CallerOf("a", 100), 100), std::nullopt);
  EXPECT_NE(budget.Charge(CallerOf("a", 100), 1), std::nullopt);
  EXPECT_EQ(budget.Charge(CallerOf("b", 100), 100), std::nullopt);
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(budget.Charge(CallerOf("", 0), 1'000'000), std::nullopt) << "without limit";
  }
}

TEST(TokenBudget, ANewRateCountsFromNowOn) {
  ManualClock clock;
  TokenBudget budget(clock);
  EXPECT_EQ(budget.Charge(CallerOf("a", 600), 600), std::nullopt);
  clock.Advance(absl::Seconds(30));
  EXPECT_EQ(budget.Charge(CallerOf("a", 60), 60), std::nullopt) << "of the 300 it keeps 60";
  EXPECT_EQ(budget.Charge(CallerOf("a", 60), 60), absl::Minutes(1));
}

TEST(TokenBudget, ForgetsTenantsThatUseNothing) {
  ManualClock clock;
  TokenBudget budget(clock);
  for (int i = 0; i < 10'000; ++i) {
    EXPECT_EQ(budget.Charge(CallerOf(std::to_string(i), 60), 1), std::nullopt);
    clock.Advance(absl::Seconds(1));
  }
  EXPECT_LE(budget.buckets(), 64u);
}

// Whatever the order: in any time, no more than a minute's tokens and what time has brought.
TEST(TokenBudget, NeverGivesMoreThanTimeBrings) {
  ManualClock clock;
  TokenBudget budget(clock);
  const Caller caller = CallerOf("a", 6000);
  std::mt19937 random(7);
  double used = 0;
  for (int i = 0; i < 20'000; ++i) {
    clock.Advance(absl::Milliseconds(random() % 100));
    const std::uint64_t wanted = random() % 2000;
    const auto wait = budget.Charge(caller, wanted);
    if (wait.has_value()) {
      EXPECT_GT(*wait, absl::ZeroDuration());
      EXPECT_LE(*wait, absl::Minutes(1));
      continue;
    }
    const std::uint64_t unused = random() % (wanted + 1);
    budget.Refund(caller, unused);
    used += static_cast<double>(wanted - unused);
    ASSERT_LE(used, 6000 + absl::ToDoubleSeconds(clock.Monotonic()) * 100 + 1);
  }
  EXPECT_GT(used, 6000);
}

TEST(TokenBudget, IsSharedByThreads) {
  ManualClock clock;
  TokenBudget budget(clock);
  const Caller caller = CallerOf("a", 100'000);
  std::atomic<int> taken = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int n = 0; n < 1000; ++n) taken += budget.Charge(caller, 50).has_value() ? 0 : 1;
      });
    }
  }
  EXPECT_EQ(taken, 2000);
}

}  // namespace
}  // namespace baleen::router
