// ReasoningSplitter: tables of replies, each cut in every way.
#include "router/text/reasoning.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace baleen::router {
namespace {

struct Case {
  const char* name;
  bool starts_inside;
  std::string reply;
  std::string reasoning;
  std::string content;
};

ReplyDelta Split(const Case& c, const std::vector<std::size_t>& cuts) {
  ReasoningSplitter splitter({.starts_inside = c.starts_inside, .finds_tags_in_text = true});
  ReplyDelta delta;
  std::size_t begin = 0;
  for (const std::size_t cut : cuts) {
    splitter.Text(std::string_view(c.reply).substr(begin, cut - begin), &delta);
    begin = cut;
  }
  splitter.Text(std::string_view(c.reply).substr(begin), &delta);
  splitter.Finish(&delta);
  return delta;
}

std::vector<Case> Cases() {
  return {
      {"empty", false, "", "", ""},
      {"empty, inside", true, "", "", ""},
      {"no reasoning", false, "Hello", "", "Hello"},
      {"no reasoning keeps its margins", false, "\n \nHello\n\n", "", "\n \nHello\n\n"},
      {"white space only", false, " \n ", "", " \n "},
      {"R1", true, "9+56\nones\n</think>\n\n9 + 56 = 65", "9+56\nones", "9 + 56 = 65"},
      {"R1, tag in the reply", false, "<think>\nabc\n</think>\n\nxyz", "abc", "xyz"},
      {"white space before the tag", false, " \n<think>a</think>b", "a", "b"},
      {"no line feeds", true, "a</think>b", "a", "b"},
      {"only line feeds belong to the margins", true, "\n a \n</think>\n b \n", " a ", " b \n"},
      {"line feeds inside stay", true, "a\n\n\nb</think>c\n\n\nd", "a\n\n\nb", "c\n\n\nd"},
      {"empty reasoning", true, "\n\n</think>\n\nb", "", "b"},
      {"empty answer", true, "a</think>\n\n", "a", ""},
      {"cut off while reasoning", true, "a\nb\n\n", "a\nb", ""},
      {"cut off in the tag", true, "a\n</thin", "a\n</thin", ""},
      {"cut off in the opening tag", false, "<thi", "", "<thi"},
      {"nearly a tag", true, "a </thin> </ think></think>b", "a </thin> </ think>", "b"},
      {"tag begins twice", true, "a</th</think>b", "a</th", "b"},
      {"nearly an opening tag", false, "<thin>a</think>b", "", "<thin>a</think>b"},
      {"tags in the answer are text", true, "a</think>b</think>c<think>d", "a",
       "b</think>c<think>d"},
      {"closing tag without reasoning is text", false, "b</think>c", "", "b</think>c"},
      {"opening tag inside reasoning is text", true, "a<think>b</think>c", "a<think>b", "c"},
      {"other characters", true, "\n你好 👋\n</think>\n\n世界", "你好 👋", "世界"},
  };
}

TEST(ReasoningSplitterTest, TheSplitDoesNotDependOnTheCuts) {
  for (const Case& c : Cases()) {
    std::vector<std::size_t> every;
    for (std::size_t i = 0; i <= c.reply.size(); ++i) every.push_back(i);
    std::vector<std::vector<std::size_t>> all_cuts = {{}, every};
    for (std::size_t i = 0; i <= c.reply.size(); ++i) {
      for (std::size_t j = i; j <= c.reply.size(); ++j) all_cuts.push_back({i, j});
    }
    for (const auto& cuts : all_cuts) {
      const ReplyDelta delta = Split(c, cuts);
      ASSERT_EQ(delta.reasoning, c.reasoning) << c.name << ", " << cuts.size() << " cuts";
      ASSERT_EQ(delta.content, c.content) << c.name << ", " << cuts.size() << " cuts";
    }
  }
}

TEST(ReasoningSplitterTest, StreamsWhatIsCertain) {
  ReasoningSplitter splitter({.starts_inside = true, .finds_tags_in_text = true});
  ReplyDelta delta;
  splitter.Text("\nabc", &delta);
  EXPECT_EQ(delta.reasoning, "abc");
  splitter.Text("\n</th", &delta);
  EXPECT_EQ(delta.reasoning, "abc");
  splitter.Text("x", &delta);
  EXPECT_EQ(delta.reasoning, "abc\n</thx");
  EXPECT_TRUE(splitter.in_reasoning());
  splitter.Text("</think>d", &delta);
  EXPECT_FALSE(splitter.in_reasoning());
  EXPECT_EQ(delta.content, "d");
}

TEST(ReasoningSplitterTest, TagsAsTokensLeaveTheTextAlone) {
  ReasoningSplitter splitter({.starts_inside = false, .finds_tags_in_text = false});
  ReplyDelta delta;
  EXPECT_FALSE(splitter.Close());
  splitter.Text("\n", &delta);
  EXPECT_TRUE(splitter.Open());
  EXPECT_TRUE(splitter.Open());  // repeated before any text: no text either
  splitter.Text("\nthe tag is spelled </think>", &delta);
  EXPECT_FALSE(splitter.Open());
  EXPECT_TRUE(splitter.Close());
  EXPECT_FALSE(splitter.Close());
  EXPECT_FALSE(splitter.Open());
  splitter.Text("\n\n<think>", &delta);
  splitter.Finish(&delta);
  EXPECT_EQ(delta.reasoning, "the tag is spelled </think>");
  EXPECT_EQ(delta.content, "<think>");
}

}  // namespace
}  // namespace baleen::router
