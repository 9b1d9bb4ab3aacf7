// Vocabularies, regular expressions, Lark grammars, and where replies end.
#include "text/grammar/grammar.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

TEST(GrammarTest, RegexMatchesTheWholeText) {
  const auto grammar = MustCompile(GrammarKind::kRegex, "(yes|no)[!]{0,2}");
  for (const char* text : {"yes", "no", "yes!", "no!!"}) EXPECT_TRUE(Accepts(grammar, text));
  for (const char* text : {"", "ye", "yess", "no!!!", " yes"}) EXPECT_FALSE(Accepts(grammar, text));
}

TEST(GrammarTest, LarkIsContextFree) {
  const auto grammar = MustCompile(GrammarKind::kLark,
                                   "start: sum\n"
                                   "sum: term (\"+\" term)*\n"
                                   "term: NUMBER | \"(\" sum \")\"\n"
                                   "NUMBER: /[0-9]+/\n");
  for (const char* text : {"1", "1+2", "((1+2)+3)", "(7)"}) EXPECT_TRUE(Accepts(grammar, text));
  for (const char* text : {"", "1+", "((1)", "(1))", "a"}) EXPECT_FALSE(Accepts(grammar, text));
}

// End-of-sequence is allowed exactly where the grammar may end, and alone when nothing can follow.
TEST(GrammarTest, EndsWhereItMayAndNowhereElse) {
  const std::int32_t eos = Tokens().eos;
  const auto matcher = MustMatch(MustCompile(GrammarKind::kRegex, "ab{1,2}"));
  EXPECT_FALSE(IsAllowed(*matcher, eos));
  EXPECT_FALSE(matcher->Consume(eos).ok());

  const auto other = MustMatch(MustCompile(GrammarKind::kRegex, "ab{1,2}"));
  for (const std::int32_t token : Bytes("ab")) ASSERT_TRUE(other->Consume(token).ok());
  EXPECT_TRUE(IsAllowed(*other, eos));
  EXPECT_GT(Allowed(*other).size(), 1u);
  EXPECT_FALSE(other->is_stopped());
  ASSERT_TRUE(other->Consume(Bytes("b")[0]).ok());
  EXPECT_TRUE(other->is_stopped());
  EXPECT_THAT(Allowed(*other), testing::ElementsAre(eos));
  EXPECT_FALSE(other->Consume(Bytes("b")[0]).ok());
  EXPECT_TRUE(other->Consume(eos).ok());
  EXPECT_THAT(Allowed(*other), testing::ElementsAre(eos)) << "a reply that ignores its end";
  EXPECT_TRUE(other->Consume(eos).ok());
}

TEST(GrammarTest, EndInTheMiddleIsTheEnd) {
  const auto matcher = MustMatch(MustCompile(GrammarKind::kRegex, "a*"));
  ASSERT_TRUE(matcher->Consume(Bytes("a")[0]).ok());
  ASSERT_TRUE(matcher->Consume(Tokens().eos).ok());
  EXPECT_TRUE(matcher->is_stopped());
  EXPECT_THAT(Allowed(*matcher), testing::ElementsAre(Tokens().eos));
}

// Control tokens never stand for their spelling, and rows of the model that no token has are never
// sampled.
TEST(GrammarTest, NoControlTokensAndNoPadding) {
  const auto matcher = MustMatch(MustCompile(GrammarKind::kRegex, "(?s:.)*"));
  const std::vector<std::int32_t> allowed = Allowed(*matcher);
  EXPECT_GT(allowed.size(), 400u);
  for (const std::int32_t id : allowed) {
    const auto index = static_cast<std::size_t>(id);
    if (id != Tokens().eos) {
      EXPECT_FALSE(Tokens().control[index]) << id;
      EXPECT_FALSE(Tokens().bytes[index].empty()) << id;
    }
    EXPECT_LT(index, Tokens().bytes.size() - kPaddingRows);
  }
  const auto any = MustMatch(MustCompile(GrammarKind::kLark, "start: <[*]>"));
  const auto size = static_cast<std::int32_t>(Tokens().vocabulary->size());
  EXPECT_FALSE(IsAllowed(*any, size - 1)) << "padding";
  EXPECT_TRUE(IsAllowed(*any, Tokens().tool_tokens.separator)) << "asked for by its id";
  EXPECT_FALSE(MustMatch(MustCompile(GrammarKind::kRegex, "<think>"))
                   ->Consume(Tokens().tool_tokens.separator)
                   .ok());
}

TEST(GrammarTest, SpelledControlTokensAreTextByText) {
  const auto grammar = MustCompile(GrammarKind::kRegex, "<think>");
  EXPECT_TRUE(Accepts(grammar, "<think>"));
  const auto& bytes = Tokens().bytes;
  const auto think = std::find(bytes.begin(), bytes.end(), "<think>") - bytes.begin();
  ASSERT_TRUE(Tokens().control[static_cast<std::size_t>(think)]);
  EXPECT_FALSE(IsAllowed(*MustMatch(grammar), static_cast<std::int32_t>(think)));
}

TEST(GrammarTest, TokensOutsideTheVocabularyAreErrors) {
  for (const std::int32_t token : {-1, 1 << 20}) {
    const auto matcher = MustMatch(MustCompile(GrammarKind::kRegex, "a*"));
    EXPECT_FALSE(matcher->Consume(token).ok());
  }
}

// What one reply does leaves another of the same grammar alone.
TEST(GrammarTest, MatchersAreIndependent) {
  const auto grammar = MustCompile(GrammarKind::kJsonSchema, R"({"type":"object"})");
  const auto first = MustMatch(grammar);
  const std::vector<std::int32_t> fresh = Allowed(*first);
  for (const std::int32_t token : Bytes("{\"a")) ASSERT_TRUE(first->Consume(token).ok());
  EXPECT_EQ(Allowed(*MustMatch(grammar)), fresh);
}

// Same grammar and tokens, same masks: on the prefill rank, on the decode rank, and once more.
TEST(GrammarTest, MasksAreAFunctionOfGrammarAndTokens) {
  const std::string schema =
      R"({"type":"object","properties":{"a":{"type":"string","maxLength":9}},"required":["a"]})";
  const auto one = MustCompile(GrammarKind::kJsonSchema, schema);
  const auto two = MustCompile(GrammarKind::kJsonSchema, schema);
  RandomReply(two, 5);  // its lexer has seen more
  const auto left = MustMatch(one);
  const auto right = MustMatch(two);
  for (const std::int32_t token : Bytes(R"({"a": "bcd", "e": 1})")) {
    EXPECT_EQ(Allowed(*left), Allowed(*right));
    ASSERT_TRUE(left->Consume(token).ok());
    ASSERT_TRUE(right->Consume(token).ok());
  }
  EXPECT_EQ(Allowed(*left), Allowed(*right));
}

TEST(VocabularyTest, LoadsWhatTheModelHas) {
  const auto vocabulary = Vocabulary::Load("models/nano", {});
  ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
  EXPECT_EQ((*vocabulary)->size(), 512u);
  EXPECT_EQ((*vocabulary)->mask_words(), 16u);
}

TEST(VocabularyTest, SaysWhatIsWrong) {
  EXPECT_TRUE(absl::IsNotFound(Vocabulary::Load("tests/golden", {}).status()));
  const auto small = Vocabulary::Load("models/nano", {.size = 100});
  EXPECT_TRUE(absl::IsFailedPrecondition(small.status()));
  EXPECT_THAT(std::string(small.status().message()), testing::HasSubstr("100"));
  for (const std::int32_t eos : {-5, 511 + 1}) {
    const auto no_end = Vocabulary::Load("models/nano", {.size = 600, .eos_token_ids = {eos}});
    EXPECT_TRUE(absl::IsFailedPrecondition(no_end.status())) << eos;
  }
}

}  // namespace
}  // namespace baleen::text
