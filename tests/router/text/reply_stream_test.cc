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

TokenTable MakeTable() {
  TokenTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    table.Add({.bytes = {&c, 1}, .exists = true});
  }
  table.Add({.bytes = "<think>", .exists = true, .control = true});
  table.Add({.bytes = "</think>", .exists = true, .control = true});
  table.Add({.bytes = "<eos>", .exists = true, .special = true, .control = true});
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
