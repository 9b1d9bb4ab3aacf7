// The cache of compiled grammars.
#include "text/grammar/grammar_cache.h"

#include <string>

#include "gtest/gtest.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

GrammarSource Regex(std::string text) { return {GrammarKind::kRegex, std::move(text)}; }

TEST(GrammarCacheTest, CompilesOnce) {
  GrammarCache cache(Tokens().vocabulary, {});
  const auto first = cache.Get(Regex("ab"));
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(*cache.Get(Regex("ab")), *first);
  EXPECT_NE(*cache.Get({GrammarKind::kLark, "start: \"ab\""}), *first);
  EXPECT_EQ(cache.entries(), 2u);
}

TEST(GrammarCacheTest, ForgetsTheLeastRecentlyUsed) {
  GrammarCache cache(Tokens().vocabulary, {}, {.entries_max = 2});
  const auto a = *cache.Get(Regex("a"));
  const auto b = *cache.Get(Regex("b"));
  EXPECT_EQ(*cache.Get(Regex("a")), a);
  ASSERT_TRUE(cache.Get(Regex("c")).ok());
  EXPECT_EQ(cache.entries(), 2u);
  EXPECT_EQ(*cache.Get(Regex("a")), a);
  EXPECT_NE(*cache.Get(Regex("b")), b) << "compiled anew";
}

TEST(GrammarCacheTest, CountsBytes) {
  GrammarCache cache(Tokens().vocabulary, {}, {.source_bytes_max = 10});
  ASSERT_TRUE(cache.Get(Regex("aaaaaa")).ok());
  ASSERT_TRUE(cache.Get(Regex("bbbbbb")).ok());
  EXPECT_EQ(cache.entries(), 1u);
  ASSERT_TRUE(cache.Get(Regex("cccccccccccc")).ok());
  EXPECT_EQ(cache.entries(), 1u) << "too large to keep";
}

TEST(GrammarCacheTest, KeepsNoErrors) {
  GrammarCache cache(Tokens().vocabulary, {});
  EXPECT_TRUE(absl::IsInvalidArgument(cache.Get(Regex("(")).status()));
  EXPECT_EQ(cache.entries(), 0u);
}

}  // namespace
}  // namespace baleen::text
