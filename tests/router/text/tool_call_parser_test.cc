// ToolCallParser: replies with calls in both formats, whole and broken, each cut in many ways.
#include "router/text/reply/tool_call_parser.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace baleen::router {
namespace {

using Tag = ToolCallParser::Tag;

struct Call {
  std::string name;
  std::string arguments;
  bool operator==(const Call&) const = default;
};

struct Outcome {
  std::string content;
  std::vector<Call> calls;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  out << '"' << outcome.content << '"';
  for (const Call& call : outcome.calls) out << " " << call.name << call.arguments;
  return out;
}

void Add(const ReplyDelta& delta, Outcome& outcome) {
  outcome.content += delta.content;
  for (const ToolCallDelta& part : delta.tool_calls) {
    EXPECT_TRUE(part.id.empty());
    if (part.index == outcome.calls.size()) {
      EXPECT_FALSE(part.name.empty());
      outcome.calls.push_back({part.name, part.arguments});
    } else {
      ASSERT_EQ(part.index + 1, outcome.calls.size()) << "parts come in order";
      EXPECT_TRUE(part.name.empty()) << "a name comes once";
      outcome.calls.back().arguments += part.arguments;
    }
  }
}

// Tags of a written reply: [calls] [/calls] [call] [/call] [sep].
const std::vector<std::pair<std::string_view, Tag>> kTags = {{"[calls]", Tag::kCallsBegin},
                                                             {"[/calls]", Tag::kCallsEnd},
                                                             {"[call]", Tag::kCallBegin},
                                                             {"[/call]", Tag::kCallEnd},
                                                             {"[sep]", Tag::kSeparator}};

// Feeds text in pieces of `size` bytes; one delta for each step if `apart`.
Outcome Parse(std::string_view reply, std::size_t size, bool apart, std::uint32_t calls_max = 128) {
  ToolCallParser parser(calls_max);
  Outcome outcome;
  ReplyDelta delta;
  const auto flush = [&](bool last) {
    if (!apart && !last) return;
    Add(delta, outcome);
    delta = {};
  };
  while (!reply.empty()) {
    const auto tag = std::ranges::find_if(
        kTags, [&](const auto& candidate) { return reply.starts_with(candidate.first); });
    if (tag != kTags.end()) {
      parser.Take(tag->second, &delta);
      reply.remove_prefix(tag->first.size());
    } else {
      std::size_t end = 1;
      while (end < size && end < reply.size() && reply[end] != '[') ++end;
      parser.Text(reply.substr(0, end), &delta);
      reply.remove_prefix(end);
    }
    flush(false);
  }
  parser.Finish(&delta);
  flush(true);
  EXPECT_EQ(parser.calls(), outcome.calls.size());
  return outcome;
}

void Expect(std::string_view reply, const Outcome& expected, std::uint32_t calls_max = 128) {
  for (const std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{5}, reply.size()}) {
    for (const bool apart : {false, true}) {
      EXPECT_EQ(Parse(reply, size, apart, calls_max), expected) << reply << " by " << size;
    }
  }
}

std::string Spelled(std::string_view text) {
  std::string result(text);
  const std::vector<std::pair<std::string_view, std::string_view>> spellings = {
      {"[calls]", kToolCallsBeginTag},
      {"[/calls]", kToolCallsEndTag},
      {"[call]", kToolCallBeginTag},
      {"[/call]", kToolCallEndTag},
      {"[sep]", kToolSeparatorTag}};
  for (const auto& [written, spelling] : spellings) {
    for (std::size_t at; (at = result.find(written)) != std::string::npos;) {
      result.replace(at, written.size(), spelling);
    }
  }
  return result;
}

TEST(ToolCallParserTest, ReadsTheFormatOfR1) {
  Expect("[calls][call]function[sep]add\n```json\n{\"a\": 1, \"b\": \"x\"}\n```[/call][/calls]",
         {"", {{"add", "{\"a\": 1, \"b\": \"x\"}"}}});
  Expect(
      "Let me see.\n[calls][call]function[sep]add\n```json\n{}\n```[/call]\n"
      "[call]function[sep]get_time.now-2\n```json\n{\"zone\": \"中\"}\n```[/call][/calls]",
      {"Let me see.\n", {{"add", "{}"}, {"get_time.now-2", "{\"zone\": \"中\"}"}}});
}

TEST(ToolCallParserTest, ReadsTheFormatOfV31) {
  Expect("[calls][call]add[sep]{\"a\": [1, {\"b\": 2}]}[/call][call]sub[sep]{}[/call][/calls]",
         {"", {{"add", "{\"a\": [1, {\"b\": 2}]}"}, {"sub", "{}"}}});
  Expect("[calls][call]function[sep]{\"a\": 1}[/call][/calls]", {"", {{"function", "{\"a\": 1}"}}});
}

TEST(ToolCallParserTest, BracketsInStringsAreText) {
  const std::string arguments = "{\"a\": \"}]\\\"}\\\\\", \"b\": \"```\"}";
  Expect("[call]f[sep]" + arguments + "[/call]", {"", {{"f", arguments}}});
}

TEST(ToolCallParserTest, ArgumentsMayBeMissing) {
  Expect("[calls][call]now[sep][/call][/calls]", {"", {{"now", "{}"}}});
  Expect("[calls][call]function[sep]now[/call][/calls]", {"", {{"now", "{}"}}});
  Expect("[calls][call]function[sep]now\n```json\n```[/call][/calls]", {"", {{"now", "{}"}}});
}

TEST(ToolCallParserTest, WhatIsNoCallStaysContent) {
  for (const char* reply :
       {"[calls]", "[calls]hello", "[calls][call]", "[call]two words[sep]{}[/call]",
        "[call]name without separator[/call]", "[calls][/calls]", "[/call]", "[sep]", "a[/calls]b",
        "[calls][call]f[sep]no object[/call][/calls]", "[call]function[sep]bad name\n{}",
        "[call]function[sep][/call]", "[call]f[sep]```python\n{}", "[calls][calls]x"}) {
    Expect(reply, {Spelled(reply), {}});
  }
  const std::string long_name(2000, 'x');
  Expect("[call]" + long_name + "[sep]{}", {Spelled("[call]" + long_name + "[sep]{}"), {}});
  const std::string blank(5000, ' ');
  Expect("[calls]" + blank + "x", {Spelled("[calls]") + blank + "x", {}});
}

TEST(ToolCallParserTest, TextAroundCallsIsContentAndWhiteSpaceIsNot) {
  Expect("a [calls] \n[call]f[sep]{} [/call] \n [/calls] \n", {"a ", {{"f", "{}"}}});
  Expect("[call]f[sep]{}[/call] and [call]g[sep]{}[/call]", {" and ", {{"f", "{}"}, {"g", "{}"}}});
  Expect("[call]f[sep]{} junk[/call]x", {" junkx", {{"f", "{}"}}});
  Expect("[call]f[sep]{}[/call][call]no call", {Spelled("[call]no call"), {{"f", "{}"}}});
}

TEST(ToolCallParserTest, MissingEndsLoseNothing) {
  Expect("[calls][call]f[sep]{\"a\": \"cut o", {"", {{"f", "{\"a\": \"cut o"}}});
  Expect("[calls][call]f[sep]{\"a\": 1}", {"", {{"f", "{\"a\": 1}"}}});
  Expect("[calls][call]f[sep]{\"a\": 1[call]g[sep]{}[/call]",
         {"", {{"f", "{\"a\": 1"}, {"g", "{}"}}});
  Expect("[calls][call]f[sep]{\"a\": 1[/calls]", {"", {{"f", "{\"a\": 1"}}});
  Expect("[call]f[sep]{\"a\": \"[sep][calls]\"}[/call]",
         {"", {{"f", "{\"a\": \"" + Spelled("[sep][calls]") + "\"}"}}});
}

TEST(ToolCallParserTest, TheLastCallThatThereMayBeEndsTheReply) {
  Expect("[calls][call]f[sep]{}[/call][call]g[sep]{}[/call] x", {"", {{"f", "{}"}}}, 1);
  ToolCallParser parser(1);
  ReplyDelta delta;
  parser.Take(Tag::kCallBegin, &delta);
  parser.Text("f", &delta);
  parser.Take(Tag::kSeparator, &delta);
  parser.Text("{}", &delta);
  EXPECT_FALSE(parser.full()) << "its fence may follow";
  parser.Take(Tag::kCallEnd, &delta);
  EXPECT_TRUE(parser.full());
}

TEST(ToolCallParserTest, StreamsTheArguments) {
  ToolCallParser parser;
  ReplyDelta delta;
  parser.Take(Tag::kCallsBegin, &delta);
  parser.Take(Tag::kCallBegin, &delta);
  parser.Text("function", &delta);
  parser.Take(Tag::kSeparator, &delta);
  parser.Text("add\n```json\n", &delta);
  EXPECT_TRUE(delta.tool_calls.empty());
  parser.Text("{\"a", &delta);
  ASSERT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_EQ(delta.tool_calls[0].name, "add");
  EXPECT_EQ(delta.tool_calls[0].arguments, "{\"a");
  delta = {};
  parser.Text("\": 1}\n", &delta);
  ASSERT_EQ(delta.tool_calls.size(), 1u);
  EXPECT_EQ(delta.tool_calls[0].name, "");
  EXPECT_EQ(delta.tool_calls[0].arguments, "\": 1}");
}

// Any order of tags and text: the same whatever the cuts, and no text is lost but for white space,
// fences and tags around calls.
TEST(ToolCallParserTest, AnythingGoesAndCutsDoNotMatter) {
  constexpr unsigned kSeed = 6;
  std::mt19937 random(kSeed);
  const std::vector<std::string> words = {"[calls]",
                                          "[/calls]",
                                          "[call]",
                                          "[/call]",
                                          "[sep]",
                                          "function",
                                          "add",
                                          "\n",
                                          "```json\n",
                                          "{",
                                          "\"a\": 1}",
                                          "}",
                                          "```",
                                          " ",
                                          "text",
                                          "\"",
                                          "\\",
                                          "{}",
                                          "[call]add[sep]",
                                          "[call]function[sep]add\n"};
  int calls = 0;
  for (int round = 0; round < 12'000; ++round) {
    std::string reply;
    for (unsigned i = random() % 25; i > 0; --i) reply += words[random() % words.size()];
    const Outcome whole = Parse(reply, reply.size(), false);
    ASSERT_EQ(Parse(reply, 1, true), whole) << reply;
    calls += static_cast<int>(whole.calls.size());
    std::size_t texts = 0;
    const auto count = [](std::string_view in) {
      std::size_t found = 0;
      for (std::size_t at = 0; (at = in.find("text", at)) != std::string_view::npos; ++at) ++found;
      return found;
    };
    texts = count(whole.content);
    for (const Call& call : whole.calls) texts += count(call.arguments) + count(call.name);
    ASSERT_EQ(texts, count(reply)) << reply;
  }
  EXPECT_GT(calls, 200);
}

}  // namespace
}  // namespace baleen::router
