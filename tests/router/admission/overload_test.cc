// What tells overload: the estimate of waits, and the ladder of memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "router/admission/memory_ladder.h"
#include "router/admission/memory_watch.h"
#include "router/admission/wait_estimate.h"

namespace baleen::router {
namespace {

TEST(WaitEstimate, IsTheRateAtWhichThoseBeforeWereStarted) {
  WaitEstimate estimate;
  EXPECT_EQ(estimate.Wait(absl::ZeroDuration(), 1000), std::nullopt);
  estimate.SetBacklogged(absl::ZeroDuration(), true);
  for (int i = 1; i <= 200; ++i) estimate.Started(absl::Milliseconds(100 * i), 50);
  // 500 tokens a second.
  const auto wait = estimate.Wait(absl::Seconds(20), 1000);
  ASSERT_TRUE(wait.has_value());
  EXPECT_NEAR(absl::ToDoubleSeconds(*wait), 2.0, 0.05);
  EXPECT_EQ(estimate.Wait(absl::Seconds(20), 0), absl::ZeroDuration());
}

TEST(WaitEstimate, TimeInWhichNobodyWaitsDoesNotCount) {
  WaitEstimate estimate;
  for (int i = 0; i < 100; ++i) {
    estimate.SetBacklogged(absl::Seconds(i), true);
    estimate.Started(absl::Seconds(i) + absl::Milliseconds(200), 50);
    estimate.SetBacklogged(absl::Seconds(i) + absl::Milliseconds(200), false);
  }
  const auto wait = estimate.Wait(absl::Seconds(99.2), 500);
  ASSERT_TRUE(wait.has_value());
  EXPECT_NEAR(absl::ToDoubleSeconds(*wait), 2.0, 0.05) << "250 tokens a second while some wait";
}

TEST(WaitEstimate, FollowsARateThatChangesAndForgetsAnOldOne) {
  WaitEstimate estimate;
  estimate.SetBacklogged(absl::ZeroDuration(), true);
  for (int i = 1; i <= 200; ++i) estimate.Started(absl::Milliseconds(100 * i), 50);
  for (int i = 1; i <= 40; ++i) estimate.Started(absl::Seconds(20 + i), 50);
  EXPECT_NEAR(absl::ToDoubleSeconds(*estimate.Wait(absl::Seconds(60), 50)), 1.0, 0.25);
  EXPECT_EQ(estimate.BackloggedFor(absl::Seconds(60)), absl::Seconds(60));
  estimate.SetBacklogged(absl::Seconds(60), false);
  EXPECT_EQ(estimate.BackloggedFor(absl::Seconds(61)), absl::ZeroDuration());
  EXPECT_EQ(estimate.Wait(absl::Seconds(200), 50), std::nullopt) << "too long ago";
}

TEST(WaitEstimate, ARunIsAsLongAsThoseThatHaveFinished) {
  WaitEstimate estimate;
  EXPECT_EQ(estimate.Run(100), absl::ZeroDuration());
  for (int i = 0; i < 50; ++i) estimate.Finished(absl::Seconds(1), absl::Seconds(3), 21);
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.Run(1000)), 3.0, 1e-6);
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.Run(11)), 2.0, 1e-6) << "no longer than it may be";
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.Run(1)), 1.0, 1e-6);
}

TEST(MemoryLadder, StepsByTheLargerOfBothCounts) {
  struct Case {
    MemoryReading reading;
    std::uint64_t limit;
    MemoryLevel level;
  };
  const std::vector<Case> cases = {
      {{0, 0}, 1000, MemoryLevel::kNormal},        {{799, 0}, 1000, MemoryLevel::kNormal},
      {{800, 0}, 1000, MemoryLevel::kRefuseLow},   {{0, 899}, 1000, MemoryLevel::kRefuseLow},
      {{100, 900}, 1000, MemoryLevel::kRefuseAll}, {{949, 100}, 1000, MemoryLevel::kRefuseAll},
      {{950, 950}, 1000, MemoryLevel::kCancel},    {{5000, 0}, 1000, MemoryLevel::kCancel},
      {{~0ull, ~0ull}, 0, MemoryLevel::kNormal},   {{~0ull, 0}, ~0ull, MemoryLevel::kCancel},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(LevelOf(c.reading, c.limit), c.level)
        << c.reading.accounted_bytes << " " << c.reading.resident_bytes << " of " << c.limit;
  }
}

TEST(MemoryWatch, ClimbsTheLadderAndComesDownAgain) {
  ManualClock clock;
  Admission admission({}, clock);
  std::uint64_t resident = 0;
  int cancelled = 0;
  MemoryWatch watch({.limit_bytes = 1000, .resident_bytes = [&] { return resident; }}, clock,
                    admission, [&] { ++cancelled; });
  const auto read = [&](std::uint64_t bytes) {
    resident = bytes;
    clock.Advance(absl::Milliseconds(250));
    watch.Tick();
    return watch.level();
  };
  EXPECT_EQ(read(799), MemoryLevel::kNormal);
  EXPECT_EQ(read(850), MemoryLevel::kRefuseLow);
  EXPECT_FALSE(admission.Admit({.priority = 4}).ok());
  EXPECT_TRUE(admission.Admit({.priority = 5}).ok());
  EXPECT_EQ(read(900), MemoryLevel::kRefuseAll);
  EXPECT_EQ(cancelled, 0);
  EXPECT_EQ(read(960), MemoryLevel::kCancel);
  EXPECT_EQ(cancelled, 1);
  resident = 0;
  clock.Advance(absl::Milliseconds(249));
  watch.Tick();
  EXPECT_EQ(watch.level(), MemoryLevel::kCancel) << "one reading a period";
  EXPECT_EQ(read(0), MemoryLevel::kNormal);
  EXPECT_TRUE(admission.Admit({.priority = 0}).ok());
  admission.AddReplyBytes(950);
  EXPECT_EQ(read(0), MemoryLevel::kCancel) << "replies that nobody reads count";
}

TEST(MemoryWatch, WithoutALimitNothingIsRead) {
  ManualClock clock;
  Admission admission({}, clock);
  MemoryWatch watch({.resident_bytes = [] { return ~std::uint64_t{0}; }}, clock, admission, [] {});
  watch.Tick();
  EXPECT_EQ(watch.level(), MemoryLevel::kNormal);
}

TEST(MemoryLadder, ReadsThisProcess) { EXPECT_GT(ResidentBytes(), 1u << 20); }

}  // namespace
}  // namespace baleen::router
