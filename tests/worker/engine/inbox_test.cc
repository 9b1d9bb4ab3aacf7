// The inbox: order, bounds, and many threads at once.
#include "worker/engine/inbox.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <variant>
#include <vector>

#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

StartCommand StartOf(std::uint64_t router, std::uint64_t number) {
  return {.key = {.id = {.router = router, .number = number}, .attempt = 1}};
}

CancelCommand CancelOf(std::uint64_t number) {
  return {.key = {.id = {.router = 1, .number = number}, .attempt = 1}};
}

TEST(Inbox, KeepsTheOrderOfArrival) {
  Inbox inbox({});
  ASSERT_TRUE(inbox.Push(StartOf(1, 1)).ok());
  ASSERT_TRUE(inbox.Push(CancelOf(1)).ok());
  ASSERT_TRUE(inbox.Push(DrainCommand{}).ok());
  const std::vector<Command> commands = inbox.Take();
  ASSERT_EQ(commands.size(), 3u);
  EXPECT_TRUE(std::holds_alternative<StartCommand>(commands[0]));
  EXPECT_TRUE(std::holds_alternative<CancelCommand>(commands[1]));
  EXPECT_TRUE(std::holds_alternative<DrainCommand>(commands[2]));
  EXPECT_TRUE(inbox.Take().empty());
}

TEST(Inbox, IsBoundedForEachKind) {
  Inbox inbox({.starts_max = 2, .controls_max = 1});
  ASSERT_TRUE(inbox.Push(StartOf(1, 1)).ok());
  ASSERT_TRUE(inbox.Push(StartOf(1, 2)).ok());
  const absl::Status full = inbox.Push(StartOf(1, 3));
  EXPECT_EQ(contract::ReasonOf(full), contract::Reason::kQueueFull) << full;
  // Withdrawals have a bound of their own; what must not be lost is always taken.
  ASSERT_TRUE(inbox.Push(CancelOf(1)).ok());
  EXPECT_EQ(contract::ReasonOf(inbox.Push(ReleaseCommand{})), contract::Reason::kQueueFull);
  EXPECT_TRUE(inbox.Push(LinkLostCommand{}).ok());
  EXPECT_TRUE(inbox.Push(DrainCommand{}).ok());
  EXPECT_EQ(inbox.Take().size(), 5u);
  EXPECT_TRUE(inbox.Push(StartOf(1, 4)).ok()) << "room again";
}

// Every Drain frame was kept: a router that repeats it during a long step grew the inbox without
// bound.
TEST(Inbox, RepeatedDrainsAreOne) {
  Inbox inbox({});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(inbox.Push(DrainCommand{}).ok());
  EXPECT_EQ(inbox.Take().size(), 1u);
  ASSERT_TRUE(inbox.Push(DrainCommand{}).ok());
  EXPECT_EQ(inbox.Take().size(), 1u) << "and taken again after that";
}

TEST(Inbox, AWakeBeforeTheWaitIsNotLost) {
  Inbox inbox({});
  inbox.Wake();
  inbox.WaitFor(absl::Hours(1));  // returns at once
  inbox.WaitFor(absl::ZeroDuration());
  ASSERT_TRUE(inbox.Push(DrainCommand{}).ok());
  inbox.WaitFor(absl::Hours(1));  // there is something
}

// Senders that are refused try again: everything arrives, once, in each sender's order.
TEST(Inbox, ManySendersOneTaker) {
  constexpr std::uint64_t kSenders = 4;
  constexpr std::uint64_t kEach = 2000;
  Inbox inbox({.starts_max = 16});
  std::atomic<std::uint64_t> refused = 0;
  std::vector<std::jthread> senders;
  for (std::uint64_t sender = 1; sender <= kSenders; ++sender) {
    senders.emplace_back([&inbox, &refused, sender] {
      for (std::uint64_t number = 1; number <= kEach; ++number) {
        while (!inbox.Push(StartOf(sender, number)).ok()) {
          refused.fetch_add(1);
          std::this_thread::yield();
        }
      }
    });
  }
  std::vector<std::uint64_t> next(kSenders + 1, 1);
  std::uint64_t taken = 0;
  while (taken < kSenders * kEach) {
    inbox.WaitFor(absl::Seconds(10));
    for (const Command& command : inbox.Take()) {
      const contract::RequestId id = std::get<StartCommand>(command).key.id;
      ASSERT_EQ(id.number, next[id.router]++);
      ++taken;
    }
  }
  EXPECT_TRUE(inbox.Take().empty());
}

}  // namespace
}  // namespace baleen::worker
