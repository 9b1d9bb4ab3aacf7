// The gate: limits by count and by bytes, places that give themselves back, and the hint when to
// come back.
#include "router/admission/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "proto/contract/status.h"

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::HasSubstr;

TEST(Admission, CountIsBoundedAndPlacesComeBack) {
  ManualClock clock;
  Admission admission({.requests_max = 2, .bytes_max = 1000}, clock);
  auto first = admission.Admit(10);
  auto second = admission.Admit(10);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(admission.admitted(), 2u);

  const auto third = admission.Admit(10);
  EXPECT_EQ(contract::ReasonOf(third.status()), Reason::kQueueFull);
  EXPECT_THAT(std::string(third.status().message()), HasSubstr("2 requests are inside, limit 2"));

  { const Admission::Ticket gone = *std::move(first); }
  EXPECT_EQ(admission.admitted(), 1u);
  EXPECT_TRUE(admission.Admit(10).ok());
}

TEST(Admission, BytesAreBounded) {
  ManualClock clock;
  Admission admission({.requests_max = 100, .bytes_max = 1000}, clock);
  auto large = admission.Admit(700);
  ASSERT_TRUE(large.ok());
  const auto refused = admission.Admit(301);
  EXPECT_EQ(contract::ReasonOf(refused.status()), Reason::kQueueFull);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("700 bytes of requests are inside, 301 more exceed the limit of 1000"));
  EXPECT_TRUE(admission.Admit(300).ok());
  EXPECT_EQ(contract::ReasonOf(admission.Admit(~std::uint64_t{0}).status()), Reason::kQueueFull)
      << "sizes do not wrap around";
}

TEST(Admission, AMovedTicketIsOnePlace) {
  ManualClock clock;
  Admission admission({.requests_max = 5, .bytes_max = 1000}, clock);
  std::optional<Admission::Ticket> kept;
  {
    Admission::Ticket ticket = *admission.Admit(1);
    Admission::Ticket other = std::move(ticket);
    kept = std::move(other);
  }
  EXPECT_EQ(admission.admitted(), 1u);
  *kept = Admission::Ticket();
  EXPECT_EQ(admission.admitted(), 0u);
}

TEST(Admission, DrainingAdmitsNothing) {
  ManualClock clock;
  Admission admission({}, clock);
  const auto inside = admission.Admit(1);
  admission.StopAdmitting();
  EXPECT_EQ(contract::ReasonOf(admission.Admit(1).status()), Reason::kDraining);
  EXPECT_EQ(admission.admitted(), 1u) << "what is inside stays";
}

TEST(Admission, RetryHintFollowsHowLongRequestsStay) {
  ManualClock clock;
  Admission admission({.requests_max = 4, .bytes_max = 1000}, clock);
  // Two at a time, 4 s each: one leaves every 2 s.
  for (int i = 0; i < 100; ++i) {
    const auto a = admission.Admit(1);
    const auto b = admission.Admit(1);
    clock.Advance(absl::Seconds(4));
  }
  const auto a = admission.Admit(1);
  const auto b = admission.Admit(1);
  const double hint_s = absl::ToDoubleSeconds(admission.RetryAfter());
  EXPECT_NEAR(hint_s, 2.0, 0.1);
  for (int i = 0; i < 200; ++i) {
    const auto c = admission.Admit(1);
  }
  EXPECT_EQ(admission.RetryAfter(), absl::Milliseconds(50)) << "never less than the least hint";
}

TEST(Admission, ManyThreadsNeverExceedTheLimit) {
  Admission admission({.requests_max = 3, .bytes_max = 1000}, SystemClock());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&admission] {
      for (int i = 0; i < 2000; ++i) {
        const auto ticket = admission.Admit(10);
        EXPECT_LE(admission.admitted(), 3u);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admission.admitted(), 0u);
}

class Shares : public ::testing::Test {
 protected:
  // Takes places for a tenant until it is refused; returns how many.
  std::uint32_t Flood(const std::string& tenant, std::uint64_t bytes = 1) {
    for (std::uint32_t taken = 0;; ++taken) {
      auto ticket = admission_.Admit({.bytes = bytes, .tenant = tenant});
      if (!ticket.ok()) {
        EXPECT_EQ(contract::ReasonOf(ticket.status()), Reason::kQueueFull);
        refusal_ = std::string(ticket.status().message());
        return taken;
      }
      tickets_[tenant].push_back(*std::move(ticket));
    }
  }

  ManualClock clock_;
  Admission admission_{{.requests_max = 100, .bytes_max = 100'000}, clock_};
  std::map<std::string, std::vector<Admission::Ticket>> tickets_;
  std::string refusal_;
};

TEST_F(Shares, ATenantAloneMayHaveEverything) { EXPECT_EQ(Flood("a"), 100u); }

TEST_F(Shares, OneThatFloodsLeavesRoomForOthersAndTheyForMore) {
  auto other = admission_.Admit({.bytes = 1, .tenant = "b"});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(Flood("a"), 80u) << "80 of 100, 1 is taken, 19 are free: 80 >= 4 * 19";
  EXPECT_THAT(refusal_, HasSubstr("80 requests of this tenant are inside, 19 places are left"));
  EXPECT_GT(Flood("c"), 10u);
  EXPECT_TRUE(admission_.Admit({.bytes = 1, .tenant = "d"}).ok());
}

TEST_F(Shares, ANewcomerFindsAPlaceAsSoonAsTheFloodHasShrunk) {
  ASSERT_EQ(Flood("a"), 100u);
  EXPECT_FALSE(admission_.Admit({.bytes = 1, .tenant = "b"}).ok());
  tickets_["a"].pop_back();
  EXPECT_FALSE(admission_.Admit({.bytes = 1, .tenant = "a"}).ok()) << "others are about";
  EXPECT_TRUE(admission_.Admit({.bytes = 1, .tenant = "b"}).ok());
  clock_.Advance(kTenantAbout);
  EXPECT_TRUE(admission_.Admit({.bytes = 1, .tenant = "a"}).ok()) << "alone again";
}

TEST_F(Shares, BytesAreSharedToo) {
  auto other = admission_.Admit({.bytes = 1000, .tenant = "b"});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(Flood("a", 10'000), 8u);
  EXPECT_THAT(refusal_, HasSubstr("80000 bytes of requests of this tenant are inside"));
  EXPECT_TRUE(admission_.Admit({.bytes = 19'000, .tenant = "c"}).ok()) << "its first one";
}

TEST(Admission, TheLadderDecidesWhoComesInWhenMemoryIsShort) {
  ManualClock clock;
  Admission admission({}, clock);
  const auto admits = [&](std::uint32_t priority) {
    return admission.Admit({.bytes = 1, .priority = priority}).ok();
  };
  admission.SetMemoryLevel(MemoryLevel::kRefuseLow);
  EXPECT_FALSE(admits(4));
  EXPECT_TRUE(admits(5));
  admission.SetMemoryLevel(MemoryLevel::kRefuseAll);
  EXPECT_FALSE(admits(9));
  EXPECT_THAT(std::string(admission.Admit({.priority = 9}).status().message()),
              HasSubstr("short of memory"));
  admission.SetMemoryLevel(MemoryLevel::kNormal);
  EXPECT_TRUE(admits(0));
}

TEST(Admission, AccountsRequestsAndRepliesThatWait) {
  ManualClock clock;
  Admission admission({}, clock);
  auto ticket = admission.Admit(1000);
  ASSERT_TRUE(ticket.ok());
  admission.AddReplyBytes(500);
  EXPECT_EQ(admission.accounted_bytes(), 1500u);
  admission.AddReplyBytes(-500);
  EXPECT_EQ(admission.accounted_bytes(), 1000u);
}

}  // namespace
}  // namespace baleen::router
