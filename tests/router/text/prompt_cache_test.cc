// PromptCache, and parts encoded with its help and on several threads.
#include "router/text/encoding/prompt_cache.h"

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "router/text/encoding/parts.h"

namespace baleen::router {
namespace {

using Ids = std::vector<std::int32_t>;

std::string TextOf(int number) {
  return std::string(PromptCache::kTextBytesMin, 'x') + std::to_string(number);
}

Ids IdsOf(std::string_view text) { return Ids(text.begin(), text.end()); }

// An id for each byte; pieces end behind spaces.
const PieceEncoder kBytes = {
    .piece_end =
        [](std::string_view text) { return std::min(text.find(' ', 8192), text.size() - 1) + 1; },
    .encode = [](std::string_view text) -> absl::StatusOr<Ids> {
      if (text.find('!') != std::string_view::npos) return absl::InternalError("a '!'");
      return IdsOf(text);
    }};

void RunInThreads(std::size_t count, const std::function<void(std::size_t)>& body) {
  std::atomic<std::size_t> next = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (std::size_t at = next++; at < count; at = next++) body(at);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PromptCacheTest, FindsWhatWasPut) {
  PromptCache cache(100'000);
  Ids ids;
  EXPECT_FALSE(cache.Find(TextOf(1), &ids));
  cache.Put(TextOf(1), Ids{1, 2});
  cache.Put(TextOf(1), Ids{1, 2});
  cache.Put(TextOf(2), Ids{3});
  EXPECT_TRUE(cache.Find(TextOf(1), &ids));
  EXPECT_TRUE(cache.Find(TextOf(2), &ids));
  EXPECT_EQ(ids, (Ids{1, 2, 3})) << "appended";
  EXPECT_EQ(cache.counts().hits, 2u);
  EXPECT_EQ(cache.counts().misses, 1u);
  EXPECT_EQ(cache.counts().entries, 2u);
}

TEST(PromptCacheTest, KeepsNoShortTextsAndNothingAboveItsSize) {
  PromptCache cache(1000);
  Ids ids;
  cache.Put(std::string(PromptCache::kTextBytesMin - 1, 'x'), Ids{1});
  cache.Put(std::string(2000, 'x'), Ids{1});
  EXPECT_EQ(cache.counts().entries, 0u);
  PromptCache none(0);
  none.Put(TextOf(1), Ids{1});
  EXPECT_FALSE(none.Find(TextOf(1), &ids));
}

TEST(PromptCacheTest, WhatWasAskedForLongestAgoGoesFirst) {
  PromptCache cache(4000);
  for (int i = 0; i < 5; ++i) cache.Put(TextOf(i), Ids(10, i));
  ASSERT_EQ(cache.counts().entries, 5u);
  Ids ids;
  EXPECT_TRUE(cache.Find(TextOf(0), &ids));
  for (int i = 5; cache.counts().entries == static_cast<std::size_t>(i); ++i) {
    cache.Put(TextOf(i), Ids(10, i));
  }
  EXPECT_TRUE(cache.Find(TextOf(0), &ids));
  EXPECT_FALSE(cache.Find(TextOf(1), &ids));
  EXPECT_LE(cache.counts().bytes, 4000u);
}

TEST(PromptCacheTest, ThreadsShareOne) {
  PromptCache cache(20'000);
  RunInThreads(3, [&](std::size_t seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    for (int round = 0; round < 3000; ++round) {
      const std::string text = TextOf(static_cast<int>(random() % 60));
      Ids ids;
      if (cache.Find(text, &ids)) {
        EXPECT_EQ(ids, IdsOf(text));
      } else {
        cache.Put(text, IdsOf(text));
      }
    }
  });
  EXPECT_LE(cache.counts().bytes, 20'000u);
  EXPECT_GT(cache.counts().hits, 0u);
}

TEST(PartsTest, HelpChangesNothing) {
  constexpr unsigned kSeed = 7;
  std::mt19937 random(kSeed);
  const ParallelFor parallel = RunInThreads;
  PromptCache cache(1 << 20);
  for (int round = 0; round < 15; ++round) {
    std::vector<std::string> texts;
    for (unsigned i = random() % 6; i > 0; --i) {
      texts.push_back(std::string(random() % 20'000, 'a') + ' ' + std::to_string(random() % 20) +
                      std::string(random() % 2 * 30'000, 'b'));
    }
    Ids expected;
    std::vector<Part> parts;
    for (const std::string& text : texts) {
      parts.push_back({.text = "control", .ids = {-7}, .known = true});
      parts.push_back({.text = text});
      expected.push_back(-7);
      for (const char c : text) expected.push_back(c);
    }
    for (const EncodeHelp& help :
         {EncodeHelp{}, EncodeHelp{.parallel = &parallel}, EncodeHelp{.cache = &cache},
          EncodeHelp{.parallel = &parallel, .cache = &cache}}) {
      std::vector<Part> copy = parts;
      for (Part& part : copy) {
        if (!part.known && help.cache != nullptr) part.known = cache.Find(part.text, &part.ids);
      }
      ASSERT_TRUE(EncodeParts(kBytes, help, copy).ok());
      ASSERT_EQ(Joined(copy), expected);
    }
  }
  EXPECT_GT(cache.counts().hits, 15u);
}

TEST(PartsTest, AnErrorIsReportedAndNothingIsRemembered) {
  const ParallelFor parallel = RunInThreads;
  PromptCache cache(1 << 20);
  const std::string text = std::string(20'000, 'a') + " ! " + std::string(20'000, 'a');
  std::vector<Part> parts = {{.text = text}};
  EXPECT_EQ(EncodeParts(kBytes, {.parallel = &parallel, .cache = &cache}, parts),
            absl::InternalError("a '!'"));
  EXPECT_EQ(cache.counts().entries, 0u);
}

}  // namespace
}  // namespace baleen::router
