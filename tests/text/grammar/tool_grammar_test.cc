// Replies that call tools, in both of DeepSeek's formats.
#include "text/grammar/tool_grammar.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

constexpr char kWeather[] = R"({"type":"object","properties":{"city":{"type":"string"},
  "days":{"type":"integer","minimum":1,"maximum":9}},"required":["city"],
          "additionalProperties":false})";

const std::vector<ToolDeclaration>& Tools() {
  static const std::vector<ToolDeclaration> tools = {{"get_weather", kWeather},
                                                     {"ns.list-all", ""}};
  return tools;
}

// Parts of a reply: text, or a control token.
struct Part {
  Part(const char* of_text) : text(of_text) {}      // NOLINT(google-explicit-constructor)
  Part(std::int32_t of_token) : token(of_token) {}  // NOLINT(google-explicit-constructor)
  std::string text;
  std::int32_t token = -1;
};

bool AcceptsParts(const ToolGrammarOptions& options, const std::vector<Part>& parts) {
  const auto source = ToolCallGrammar(options);
  EXPECT_TRUE(source.ok()) << source.status();
  const auto grammar = MustCompile(source->kind, source->text);
  std::vector<std::int32_t> tokens;
  for (const Part& part : parts) {
    if (part.token >= 0) tokens.push_back(part.token);
    for (const std::int32_t token : Bytes(part.text)) tokens.push_back(token);
  }
  return grammar != nullptr && AcceptsTokens(grammar, tokens);
}

TEST(ToolGrammarTest, NameArguments) {
  const ToolTokens t = Tokens().tool_tokens;
  const ToolGrammarOptions options = {.tokens = t, .tools = Tools()};
  EXPECT_TRUE(AcceptsParts(options, {t.calls_begin, t.call_begin, "get_weather", t.separator,
                                     R"({"city": "Oslo"})", t.call_end, t.calls_end}));
  EXPECT_TRUE(AcceptsParts(options, {t.calls_begin, t.call_begin, "get_weather", t.separator,
                                     R"({"city":"Oslo","days":3})", t.call_end, t.call_begin,
                                     "ns.list-all", t.separator, "{}", t.call_end, t.calls_end}));
  EXPECT_FALSE(AcceptsParts(options, {t.calls_begin, t.calls_end})) << "one call at least";
  EXPECT_FALSE(AcceptsParts(options, {t.calls_begin, t.call_begin, "get_wind", t.separator, "{}",
                                      t.call_end, t.calls_end}));
  EXPECT_FALSE(AcceptsParts(options, {t.calls_begin, t.call_begin, "get_weather", t.separator,
                                      R"({"days":3})", t.call_end, t.calls_end}));
  EXPECT_FALSE(AcceptsParts(options, {t.calls_begin, t.call_begin, "ns.list-all", t.separator,
                                      R"({"a":3})", t.call_end, t.calls_end}));
  EXPECT_FALSE(AcceptsParts(
      options, {t.call_begin, "ns.list-all", t.separator, "{}", t.call_end, t.calls_end}));
}

TEST(ToolGrammarTest, FunctionJsonBlock) {
  const ToolTokens t = Tokens().tool_tokens;
  const ToolGrammarOptions options = {
      .format = ToolCallFormat::kFunctionJsonBlock, .tokens = t, .tools = Tools()};
  EXPECT_TRUE(AcceptsParts(
      options, {t.calls_begin, t.call_begin, "function", t.separator,
                "get_weather\n```json\n{\"city\": \"Oslo\"}\n```", t.call_end, t.calls_end}));
  EXPECT_TRUE(AcceptsParts(
      options, {t.calls_begin, t.call_begin, "function", t.separator,
                "ns.list-all\n```json\n{}\n```", t.call_end, "\n", t.call_begin, "function",
                t.separator, "ns.list-all\n```json\n{}\n```", t.call_end, t.calls_end}));
  EXPECT_FALSE(
      AcceptsParts(options, {t.calls_begin, t.call_begin, "function", t.separator,
                             "get_weather\n{\"city\": \"Oslo\"}", t.call_end, t.calls_end}));
}

// With tool_choice auto the model has begun the calls by itself; with a named tool there is one.
TEST(ToolGrammarTest, AfterTheirBeginningAndOnlyOne) {
  const ToolTokens t = Tokens().tool_tokens;
  const ToolGrammarOptions after = {.tokens = t, .tools = Tools(), .after_calls_begin = true};
  EXPECT_TRUE(AcceptsParts(
      after, {t.call_begin, "ns.list-all", t.separator, "{}", t.call_end, t.calls_end}));
  const ToolGrammarOptions single = {
      .tokens = t, .tools = std::span(Tools()).first(1), .single = true};
  const std::string arguments = R"({"city":""})";
  EXPECT_TRUE(AcceptsParts(single, {t.calls_begin, t.call_begin, "get_weather", t.separator,
                                    arguments.c_str(), t.call_end, t.calls_end}));
  EXPECT_FALSE(AcceptsParts(single, {t.calls_begin, t.call_begin, "get_weather", t.separator,
                                     arguments.c_str(), t.call_end, t.call_begin, "get_weather",
                                     t.separator, arguments.c_str(), t.call_end, t.calls_end}));
}

TEST(ToolGrammarTest, EndsAfterTheCalls) {
  const ToolTokens t = Tokens().tool_tokens;
  const auto source = ToolCallGrammar({.tokens = t, .tools = Tools()});
  const auto matcher = MustMatch(MustCompile(source->kind, source->text));
  EXPECT_THAT(Allowed(*matcher), testing::ElementsAre(t.calls_begin));
  for (const std::int32_t token : {t.calls_begin, t.call_begin}) {
    ASSERT_TRUE(matcher->Consume(token).ok());
  }
  for (const std::int32_t token : Bytes("ns.list-all")) ASSERT_TRUE(matcher->Consume(token).ok());
  ASSERT_TRUE(matcher->Consume(t.separator).ok());
  for (const std::int32_t token : Bytes("{}")) ASSERT_TRUE(matcher->Consume(token).ok());
  for (const std::int32_t token : {t.call_end, t.calls_end}) {
    ASSERT_TRUE(matcher->Consume(token).ok());
  }
  EXPECT_TRUE(matcher->is_stopped());
  EXPECT_THAT(Allowed(*matcher), testing::ElementsAre(Tokens().eos));
}

// Blanks inside arguments are limited as in JSON formats.
TEST(ToolGrammarTest, LimitsBlanks) {
  const ToolTokens t = Tokens().tool_tokens;
  const ToolGrammarOptions options = {.tokens = t, .tools = Tools(), .after_calls_begin = true};
  for (const std::size_t blanks : {128, 129}) {
    const std::string arguments = "{" + std::string(blanks, ' ') + "}";
    EXPECT_EQ(AcceptsParts(options, {t.call_begin, "ns.list-all", t.separator, arguments.c_str(),
                                     t.call_end, t.calls_end}),
              blanks == 128);
  }
}

TEST(ToolGrammarTest, SaysWhichToolIsWrong) {
  const auto error = [](std::string_view name, std::string_view parameters) {
    const std::vector<ToolDeclaration> tools = {{name, parameters}};
    const auto source = ToolCallGrammar({.tokens = Tokens().tool_tokens, .tools = tools});
    EXPECT_TRUE(absl::IsInvalidArgument(source.status())) << source.status();
    return std::string(source.status().message());
  };
  EXPECT_THAT(error("", ""), testing::HasSubstr("1 to 64"));
  EXPECT_THAT(error("a b", ""), testing::HasSubstr("1 to 64"));
  EXPECT_THAT(error("x\"\nstart: y", ""), testing::HasSubstr("1 to 64"));
  EXPECT_THAT(error(std::string(65, 'a'), ""), testing::HasSubstr("1 to 64"));
  EXPECT_THAT(error("f", "[]"), testing::HasSubstr("tool f"));
  EXPECT_THAT(error("f", "{"), testing::HasSubstr("tool f"));
  EXPECT_THAT(error("f", R"({"type":"string"})"), testing::HasSubstr("tool f"));
  std::string deep = "{}";
  for (int i = 0; i < 100; ++i) deep = R"({"items":)" + deep + "}";
  EXPECT_THAT(error("f", deep), testing::HasSubstr("deeper than 64"));
  EXPECT_FALSE(ToolCallGrammar({.tokens = Tokens().tool_tokens}).ok());
}

}  // namespace
}  // namespace baleen::text
