// The thread pool for text and the inbox for replies, under many threads.
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <map>
#include <thread>
#include <vector>

#include "router/server/generation/reply_inbox.h"
#include "router/server/generation/text_pool.h"

namespace baleen::router {
namespace {

TEST(TextPool, DoesEveryJobOnce) {
  std::atomic<int> done{0};
  std::promise<void> all;
  TextPool pool({.threads = 3, .queue_max = 1000});
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(pool.Submit([&done, &all] {
      if (++done == 500) all.set_value();
    }));
  }
  EXPECT_EQ(all.get_future().wait_for(std::chrono::seconds(30)), std::future_status::ready);
}

TEST(TextPool, RefusesWhatDoesNotFit) {
  std::promise<void> begun;
  std::promise<void> go_on;
  std::shared_future<void> going = go_on.get_future().share();
  std::atomic<int> done{0};
  {
    TextPool pool({.threads = 1, .queue_max = 2});
    ASSERT_TRUE(pool.Submit([&begun, going, &done] {
      begun.set_value();
      going.wait();
      ++done;
    }));
    begun.get_future().wait();  // the one thread is busy, the queue is empty
    EXPECT_TRUE(pool.Submit([&done] { ++done; }));
    EXPECT_TRUE(pool.Submit([&done] { ++done; }));
    EXPECT_FALSE(pool.Submit([&done] { ++done; }));
    std::thread releaser([&go_on] { go_on.set_value(); });
    releaser.join();
  }
  EXPECT_GE(done.load(), 1) << "what has begun is finished";
  EXPECT_LE(done.load(), 3);
}

TEST(ReplyInbox, WakesOnceForWhatComesTogether) {
  int wakes = 0;
  ReplyInbox inbox(10, [&wakes] { ++wakes; });
  EXPECT_TRUE(inbox.Token({1, 1}, {.id = 5}));
  EXPECT_TRUE(inbox.Token({1, 2}, {.id = 6}));
  inbox.End({1, 1}, {.tokens = 1});
  EXPECT_EQ(wakes, 0) << "the event is not over";
  inbox.Flush();
  EXPECT_EQ(wakes, 1);
  inbox.Flush();
  EXPECT_EQ(wakes, 1) << "there is nothing new";
  const std::vector<Reply> replies = inbox.Take();
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(std::get<ReplyToken>(replies[1].body).id, 6);
  EXPECT_EQ(std::get<Ending>(replies[2].body).tokens, 1u);
  EXPECT_TRUE(inbox.Take().empty());
  inbox.End({1, 2}, {});
  inbox.Flush();
  EXPECT_EQ(wakes, 2);
}

TEST(ReplyInbox, TokensAreBoundedEndingsAreNot) {
  ReplyInbox inbox(2, [] {});
  EXPECT_TRUE(inbox.Token({1, 1}, {.id = 1}));
  EXPECT_TRUE(inbox.Token({1, 1}, {.id = 2}));
  EXPECT_FALSE(inbox.Token({1, 1}, {.id = 3}));
  inbox.End({1, 1}, {});
  inbox.Flush();
  EXPECT_FALSE(inbox.Token({1, 2}, {.id = 3})) << "nobody has taken them";
  EXPECT_EQ(inbox.Take().size(), 3u);
  EXPECT_TRUE(inbox.Token({1, 2}, {.id = 4}));
}

TEST(ReplyInbox, NothingIsLostBetweenTwoThreads) {
  constexpr int kTokens = 20'000;
  std::atomic<int> wakes{0};
  ReplyInbox inbox(kTokens, [&wakes] { ++wakes; });
  std::thread dispatch([&inbox] {
    for (int i = 0; i < kTokens; ++i) {
      ASSERT_TRUE(inbox.Token({1, 1}, {.id = i}));
      if (i % 7 == 0) inbox.Flush();
    }
    inbox.End({1, 1}, {});
    inbox.Flush();
  });
  int next = 0;
  bool ended = false;
  while (!ended) {
    if (wakes.exchange(0) == 0) std::this_thread::yield();
    for (const Reply& reply : inbox.Take()) {
      if (const auto* token = std::get_if<ReplyToken>(&reply.body)) {
        ASSERT_EQ(token->id, next++);
      } else {
        ended = true;
      }
    }
  }
  dispatch.join();
  EXPECT_EQ(next, kTokens);
}

}  // namespace
}  // namespace baleen::router
