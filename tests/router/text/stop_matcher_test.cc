// StopMatcher against a search of the whole text, however that is cut.
#include "router/text/reply/stop_matcher.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "proto/contract/limits.h"
#include "router/text/utf8.h"

namespace baleen::router {
namespace {

using Texts = std::vector<std::string>;

std::shared_ptr<const StopTexts> MustMake(const Texts& texts) {
  auto made = StopTexts::Make(texts);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

struct Outcome {
  std::string text;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

Outcome Match(const Texts& texts, const std::vector<std::string>& pieces) {
  StopMatcher matcher(MustMake(texts));
  Outcome outcome;
  for (const std::string& piece : pieces) matcher.Push(piece, true, &outcome.text);
  matcher.Finish(&outcome.text);
  outcome.stopped = matcher.stopped();
  return outcome;
}

// The definition: the earliest end, of texts with that end the longest.
Outcome Expected(const Texts& texts, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& stop : texts) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcherTest, StopsBeforeTheText) {
  EXPECT_EQ(Match({"END"}, {"a END b"}), (Outcome{"a ", true}));
  EXPECT_EQ(Match({"END"}, {"a E", "N", "D b", "c"}), (Outcome{"a ", true}));
  EXPECT_EQ(Match({"END"}, {"a EN"}), (Outcome{"a EN", false}));
  EXPECT_EQ(Match({"END"}, {"ENEND"}), (Outcome{"EN", true}));
  EXPECT_EQ(Match({}, {"a", "b"}), (Outcome{"ab", false}));
  EXPECT_EQ(Match({"你好"}, {"他说你", "好!"}), (Outcome{"他说", true}));
}

TEST(StopMatcherTest, TheEarliestEndWinsAndThenTheLongestText) {
  EXPECT_EQ(Match({"abcd", "bc"}, {"xabcd"}), (Outcome{"xa", true}));
  EXPECT_EQ(Match({"c", "abc", "bc"}, {"xabc"}), (Outcome{"x", true}));
  EXPECT_EQ(Match({"bc", "bc"}, {"xabc"}), (Outcome{"xa", true}));
}

TEST(StopMatcherTest, PassesOnWhatIsCertain) {
  StopMatcher matcher(MustMake({"\n\nUser:", "###"}));
  std::string out;
  EXPECT_FALSE(matcher.Push("Hello\n", true, &out));
  EXPECT_EQ(out, "Hello");
  EXPECT_FALSE(matcher.Push("\nUs", true, &out));
  EXPECT_EQ(out, "Hello");
  EXPECT_FALSE(matcher.Push("a#", true, &out));
  EXPECT_EQ(out, "Hello\n\nUsa");
  EXPECT_TRUE(matcher.Push("##tail", true, &out));
  EXPECT_TRUE(matcher.Push("more", true, &out));
  matcher.Finish(&out);
  EXPECT_EQ(out, "Hello\n\nUsa");
}

TEST(StopMatcherTest, ATextThatMayNotStopIsText) {
  StopMatcher matcher(MustMake({"aa", "aab"}));
  std::string out;
  EXPECT_FALSE(matcher.Push("xaa", false, &out));
  EXPECT_FALSE(matcher.Push("b", false, &out));
  EXPECT_EQ(out, "xaab") << "nothing longer can begin in it";
  EXPECT_FALSE(matcher.Push("a", false, &out));
  EXPECT_TRUE(matcher.Push("a", true, &out)) << "it may begin before and end now";
  EXPECT_EQ(out, "xaab");
}

TEST(StopMatcherTest, NamesWhatIsWrongWithTexts) {
  const auto status = [](const Texts& texts) { return StopTexts::Make(texts).status(); };
  EXPECT_EQ(status(Texts(17, "x")), absl::InvalidArgumentError("17 stop texts, limit 16"));
  EXPECT_EQ(status({"a", ""}),
            absl::InvalidArgumentError("stop text 1 is 0 bytes, must be 1 to 256"));
  EXPECT_EQ(status({std::string(257, 'x')}),
            absl::InvalidArgumentError("stop text 0 is 257 bytes, must be 1 to 256"));
  EXPECT_EQ(status({"\xBD"}), absl::InvalidArgumentError("stop text 0 is not valid UTF-8"));
}

TEST(StopMatcherTest, EqualsTheSearchOfTheWholeWhateverTheCuts) {
  constexpr unsigned kSeed = 5;
  std::mt19937 random(kSeed);
  const Texts letters = {"a", "b", "ab", "é", "你", "c"};
  const auto text_of = [&](std::size_t size_max) {
    std::string text;
    for (std::size_t i = 1 + random() % size_max; i > 0; --i) text += letters[random() % 6];
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 8000; ++round) {
    Texts stops;
    for (unsigned i = random() % 5; i > 0; --i) stops.push_back(text_of(6));
    std::vector<std::string> pieces;
    std::string whole;
    for (unsigned i = random() % 12; i > 0; --i) {
      pieces.push_back(text_of(4));
      whole += pieces.back();
    }
    const Outcome outcome = Match(stops, pieces);
    ASSERT_EQ(outcome, Expected(stops, whole)) << "seed " << kSeed << " round " << round;
    ASSERT_TRUE(IsValidUtf8(outcome.text));
    stopped += outcome.stopped ? 1 : 0;
  }
  EXPECT_GT(stopped, 500);
}

// Texts that begin alike and never end: a search that began anew at every byte would take 256 times
// as long as there are bytes.
TEST(StopMatcherTest, KeepsBackNoMoreThanATextAndGoesOnInOnePass) {
  Texts stops;
  for (std::size_t i = 0; i < contract::kStopTextsMax; ++i) {
    stops.push_back(std::string(contract::kStopTextBytesMax - 1 - i, 'a') + "b");
  }
  StopMatcher matcher(MustMake(stops));
  std::string out;
  for (int i = 0; i < 100'000; ++i) {
    matcher.Push("aaaaaaaaaa", true, &out);
    ASSERT_GE(out.size() + contract::kStopTextBytesMax, (i + std::size_t{1}) * 10);
  }
  EXPECT_TRUE(matcher.Push("b", true, &out));
  EXPECT_EQ(out.size(), 1'000'000 - (contract::kStopTextBytesMax - 1));
}

}  // namespace
}  // namespace baleen::router
