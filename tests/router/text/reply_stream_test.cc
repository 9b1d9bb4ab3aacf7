// ReplyStream: tokens to reasoning and answer.
#include "router/text/reply_stream.h"

#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace baleen::router {
namespace {

constexpr std::int32_t kOpen = 256;
constexpr std::int32_t kClose = 257;
constexpr std::int32_t kEos = 258;
constexpr ToolTokens kTools = {
    .calls_begin = 259, .calls_end = 260, .call_begin = 261, .call_end = 262, .separator = 263};

TokenTable MakeTable() {
  TokenTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    table.Add({.bytes = {&c, 1}, .exists = true});
  }
  table.Add({.bytes = "<think>", .exists = true, .control = true});
  table.Add({.bytes = "</think>", .exists = true, .control = true});
  table.Add({.bytes = "<eos>", .exists = true, .special = true, .control = true});
  for (const std::string_view tag : {kToolCallsBeginTag, kToolCallsEndTag, kToolCallBeginTag,
                                     kToolCallEndTag, kToolSeparatorTag}) {
    table.Add({.bytes = tag, .exists = true, .control = true});
  }
  return table;
}

// A token for each byte of `text`.
std::vector<std::int32_t> Bytes(std::string_view text) {
  return std::vector<std::int32_t>(
      reinterpret_cast<const std::uint8_t*>(text.data()),
      reinterpret_cast<const std::uint8_t*>(text.data()) + text.size());
}

std::vector<std::int32_t> Join(const std::vector<std::vector<std::int32_t>>& parts) {
  std::vector<std::int32_t> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const ReplyStream::Options kTokens = {.open_id = kOpen, .close_id = kClose};
const ReplyStream::Options kTokensInside = {
    .starts_inside = true, .open_id = kOpen, .close_id = kClose};

struct Outcome {
  std::string reasoning;
  std::string content;
  std::uint32_t reasoning_tokens;
  bool operator==(const Outcome&) const = default;
};

Outcome Stream(const ReplyStream::Options& options, const std::vector<std::int32_t>& ids) {
  const TokenTable table = MakeTable();
  ReplyStream stream(&table, options);
  ReplyDelta all;
  for (const std::int32_t id : ids) {
    ReplyDelta delta;
    stream.Push({&id, 1}, &delta);
    EXPECT_TRUE(IsValidUtf8(delta.reasoning));
    EXPECT_TRUE(IsValidUtf8(delta.content));
    all.reasoning += delta.reasoning;
    all.content += delta.content;
  }
  stream.Finish(&all);
  return {all.reasoning, all.content, stream.reasoning_tokens()};
}

TEST(ReplyStreamTest, SplitsAtTheToken) {
  const auto ids = Join({Bytes("\nhm\n"), {kClose}, Bytes("\n\n42"), {kEos}});
  EXPECT_EQ(Stream(kTokensInside, ids), (Outcome{"hm", "42", 5}));
}

TEST(ReplyStreamTest, TheReplyMayOpenTheReasoning) {
  const auto ids = Join({{kOpen}, Bytes("hm"), {kClose}, Bytes("42")});
  EXPECT_EQ(Stream(kTokens, ids), (Outcome{"hm", "42", 4}));
}

TEST(ReplyStreamTest, ARepeatedOpeningTokenIsNoText) {
  const auto ids = Join({{kOpen}, Bytes("hm"), {kClose}, Bytes("42")});
  EXPECT_EQ(Stream(kTokensInside, ids), (Outcome{"hm", "42", 4}));
}

TEST(ReplyStreamTest, WithoutReasoningAllIsContent) {
  EXPECT_EQ(Stream(kTokens, Join({Bytes("\n42"), {kClose}})), (Outcome{"", "\n42</think>", 0}));
}

TEST(ReplyStreamTest, SpelledTagsAreTextWhenTheyAreTokens) {
  const auto ids = Join({Bytes("a</think>b"), {kClose}, Bytes("c")});
  EXPECT_EQ(Stream(kTokensInside, ids), (Outcome{"a</think>b", "c", 11}));
}

TEST(ReplyStreamTest, SpelledTagsAreFoundWhenTheyAreNotTokens) {
  EXPECT_EQ(Stream({}, Bytes("<think>\na\n</think>\n\nb")), (Outcome{"a", "b", 18}));
  EXPECT_EQ(Stream({.starts_inside = true}, Bytes("a</think>b")), (Outcome{"a", "b", 9}));
  // One of them is a token, the other is not: both are looked for in the text, where both appear.
  EXPECT_EQ(
      Stream({.starts_inside = true, .close_id = kClose}, Join({Bytes("a</th"), {kClose}, {'b'}})),
      (Outcome{"a</th", "b", 6}));
}

TEST(ReplyStreamTest, AnUnfinishedCharacterBelongsToThePartThatItIsIn) {
  const auto ids = Join({Bytes("a\xE4\xBD"), {kClose}, Bytes("b\xE4")});
  EXPECT_EQ(Stream(kTokensInside, ids), (Outcome{"a\xEF\xBF\xBD", "b\xEF\xBF\xBD", 4}));
}

TEST(ReplyStreamTest, CutOffWhileReasoning) {
  EXPECT_EQ(Stream(kTokensInside, Bytes("abc\n")), (Outcome{"abc", "", 4}));
}

TEST(ReplyStreamTest, GenerateSplitsNothing) {
  const ReplyStream::Options options = {
      .splits_reasoning = false, .starts_inside = true, .open_id = kOpen, .close_id = kClose};
  const auto ids = Join({{kOpen}, Bytes("a\n"), {kClose}, Bytes("\nb\xE4"), {kEos}});
  EXPECT_EQ(Stream(options, ids), (Outcome{"", "<think>a\n</think>\nb\xEF\xBF\xBD", 0}));
}

std::shared_ptr<const StopTexts> Stops(const std::vector<std::string>& texts) {
  return StopTexts::Make(texts).value();
}

// The tokens of a call of `name`.
std::vector<std::int32_t> CallOf(std::string_view name, std::string_view arguments) {
  return Join(
      {{kTools.call_begin}, Bytes(name), {kTools.separator}, Bytes(arguments), {kTools.call_end}});
}

TEST(ReplyStreamTest, AStopTextEndsTheAnswerAndNotTheReasoning) {
  const TokenTable table = MakeTable();
  ReplyStream::Options options = kTokensInside;
  options.stop_texts = Stops({"STOP"});
  ReplyStream stream(&table, options);
  const auto ids = Join({Bytes("STOP"), {kClose}, Bytes("\nab ST"), Bytes("OP cd"), {kEos}});
  ReplyDelta delta;
  EXPECT_EQ(stream.Push(ids, &delta), ids.size() - 4) << "up to the token that ends it";
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.Push(Bytes("more"), &delta), 0u);
  stream.Finish(&delta);
  EXPECT_EQ(delta.reasoning, "STOP");
  EXPECT_EQ(delta.content, "ab ");
  EXPECT_EQ(stream.tool_calls(), 0u);
}

TEST(ReplyStreamTest, AStopTextMustWaitForTheFewestTokens) {
  const ReplyStream::Options options = {
      .splits_reasoning = false, .stop_texts = Stops({"x"}), .min_tokens = 3};
  EXPECT_EQ(Stream(options, Bytes("xax")), (Outcome{"", "xa", 0}));
  EXPECT_EQ(Stream(options, Bytes("xxbxc")), (Outcome{"", "xxb", 0}));
}

TEST(ReplyStreamTest, CallsAreTakenOutOfTheAnswer) {
  const TokenTable table = MakeTable();
  ReplyStream::Options options = kTokensInside;
  options.tool_tokens = kTools;
  options.stop_texts = Stops({"STOP"});
  const auto ids = Join({CallOf("no", "{}"),
                         {kClose},
                         Bytes("\n\nLet me \xE4"),
                         {kTools.calls_begin},
                         CallOf("add", "{\"a\": \"STOP\"}"),
                         CallOf("function", "sub\n```json\n{}\n```"),
                         {kTools.calls_end, kEos}});
  for (const bool one_by_one : {false, true}) {
    ReplyStream stream(&table, options);
    ReplyDelta delta;
    for (std::size_t at = 0; at < ids.size(); at += one_by_one ? 1 : ids.size()) {
      stream.Push({&ids[at], one_by_one ? 1 : ids.size()}, &delta);
    }
    stream.Finish(&delta);
    EXPECT_FALSE(stream.stopped());
    EXPECT_EQ(delta.reasoning, "<｜tool▁call▁begin｜>no<｜tool▁sep｜>{}<｜tool▁call▁end｜>");
    EXPECT_EQ(delta.content, "Let me \xEF\xBF\xBD");
    ASSERT_EQ(delta.tool_calls.size(), 2u);
    EXPECT_EQ(delta.tool_calls[0].name, "add");
    EXPECT_EQ(delta.tool_calls[0].arguments, "{\"a\": \"STOP\"}");
    EXPECT_EQ(delta.tool_calls[1].index, 1u);
    EXPECT_EQ(delta.tool_calls[1].name, "sub");
    EXPECT_EQ(delta.tool_calls[1].arguments, "{}");
    EXPECT_EQ(stream.tool_calls(), 2u);
  }
}

TEST(ReplyStreamTest, AReplyMayBeginWithACall) {
  const TokenTable table = MakeTable();
  ReplyStream::Options options = kTokens;
  options.tool_tokens = kTools;
  options.tool_calls_max = 1;
  ReplyStream stream(&table, options);
  const auto call = CallOf("add", "{}");
  ReplyDelta delta;
  EXPECT_EQ(stream.Push(Join({call, call}), &delta), call.size());
  EXPECT_TRUE(stream.stopped()) << "no more than one";
  stream.Finish(&delta);
  EXPECT_EQ(delta.content, "");
  ASSERT_EQ(delta.tool_calls.size(), 1u);
}

TEST(ReplyStreamTest, WithoutToolsTheTagsAreText) {
  EXPECT_EQ(Stream(kTokens, CallOf("f", "{}")),
            (Outcome{"", "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>", 0}));
}

TEST(ReplyStreamTest, SeveralTokensAtOnceAreTheSameAsOneByOne) {
  const TokenTable table = MakeTable();
  const auto ids = Join({Bytes("\n你好\n"), {kClose}, Bytes("\n\n世界"), {kEos}});
  ReplyStream stream(&table, kTokensInside);
  ReplyDelta delta;
  stream.Push(ids, &delta);
  stream.Finish(&delta);
  EXPECT_EQ((Outcome{delta.reasoning, delta.content, stream.reasoning_tokens()}),
            Stream(kTokensInside, ids));
  EXPECT_EQ(delta.content, "世界");
}

}  // namespace
}  // namespace baleen::router
