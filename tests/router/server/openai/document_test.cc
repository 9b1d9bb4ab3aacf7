// The JSON reader: what it takes, what it refuses and how it says so, and what comes back out.
#include "router/server/openai/json/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "router/server/openai/json/writer.h"

namespace baleen::router::json {
namespace {

using ::testing::HasSubstr;

std::string Error(const std::string& text, const Limits& limits = {}) {
  const auto document = Document::Parse(text, limits);
  return document.ok() ? "" : std::string(document.status().message());
}

TEST(Document, WritesBackWhatItRead) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"null", "null"},
      {" [ ] ", "[]"},
      {"{}", "{}"},
      {R"({"b": 1, "a": [true, false, null, {"c": {}}], "": []})",
       R"({"b":1,"a":[true,false,null,{"c":{}}],"":[]})"},
      {"[0, -0, 1.50, -2e3, 1e30, 18446744073709551615, -9223372036854775808]",
       "[0,0,1.5,-2000,1e+30,18446744073709551615,-9223372036854775808]"},
      {R"(["\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\u0000"])",
       "[\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\u00e9\U0001F600\\u0000\"]"},
      {"\t\r\n \"[\"", "\"[\""},
      {R"(["a[", "{", 1])", R"(["a[","{",1])"},
  };
  for (const auto& [text, expected] : cases) {
    const auto document = Document::Parse(text);
    ASSERT_TRUE(document.ok()) << text << document.status();
    EXPECT_EQ(document->root().ToText(), expected);
  }
}

TEST(Document, RefusesWhatIsNotJson) {
  for (const std::string text : {"",
                                 " ",
                                 "nul",
                                 "tru",
                                 "truee",
                                 "[",
                                 "]",
                                 "{",
                                 "}",
                                 "[1",
                                 "[1,",
                                 "[1,]",
                                 "[,1]",
                                 "[1 2]",
                                 "{\"a\"}",
                                 "{\"a\":}",
                                 "{\"a\":1,}",
                                 "{a:1}",
                                 "{\"a\" 1}",
                                 "{1:2}",
                                 "[1}",
                                 "{\"a\":1]",
                                 "01",
                                 "+1",
                                 "-",
                                 "1.",
                                 ".5",
                                 "1e",
                                 "1e+",
                                 "0x1",
                                 "NaN",
                                 "Infinity",
                                 "-Infinity",
                                 "'a'",
                                 "\"",
                                 "\"a",
                                 "\"\\",
                                 "\"\\x\"",
                                 "\"\\u12\"",
                                 "\"\\u12g4\"",
                                 "\"\n\"",
                                 "\"\\ud800\"",
                                 "\"\\udc00\"",
                                 "\"\\ud800\\u0041\"",
                                 "\"\\ud800x\"",
                                 "1 1",
                                 "[] []",
                                 "// c\n1",
                                 "\xEF\xBB\xBF"
                                 "1"}) {
    EXPECT_THAT(Error(text), HasSubstr("invalid_request: body: it is not JSON, at byte")) << text;
  }
}

TEST(Document, NamesTheLimitThatATextIsBeyond) {
  EXPECT_EQ(Error("1e400"), "invalid_request: body: a number is too large");
  EXPECT_EQ(Error("[-1" + std::string(400, '0') + "]"),
            "invalid_request: body: a number is too large");
  EXPECT_EQ(Error("1e-400"), "") << "too small is 0";
  EXPECT_EQ(Error(R"({"a": 1, "b": 2, "a": 3})"),
            "invalid_request: body: an object has the same key twice");
  EXPECT_EQ(Error(R"({"a": {"a": 1}, "b": {"a": 2}})"), "");
  EXPECT_EQ(Error("[\"\xC3\x28\"]"), "invalid_request: body: it is not valid UTF-8, at byte 2");
  EXPECT_EQ(Error("[\"\xED\xA0\x80\"]"), "invalid_request: body: it is not valid UTF-8, at byte 2");
  EXPECT_EQ(Error("[1,2,3]", {.values_max = 4}), "");
  EXPECT_EQ(Error("[1,2,3,4]", {.values_max = 4}),
            "invalid_request: body: it has more than 4 values");
  EXPECT_EQ(Error(std::string(64, '[') + std::string(64, ']')), "");
  EXPECT_EQ(Error(std::string(65, '[') + std::string(65, ']')),
            "invalid_request: body: it is nested deeper than 64");
  std::string deep;
  for (int i = 0; i < 1'000'000; ++i) deep += "{\"a\":";
  EXPECT_EQ(Error(deep), "invalid_request: body: it is nested deeper than 64");
}

TEST(Document, SaysWhichNumbersAreIntegers) {
  struct Case {
    std::string text;
    std::optional<std::int64_t> integer;
    std::optional<std::uint64_t> unsigned_integer;
  };
  for (const Case& c : std::vector<Case>{{"7", 7, 7},
                                         {"-7", -7, {}},
                                         {"2.0", 2, 2},
                                         {"2.5", {}, {}},
                                         {"1e3", 1000, 1000},
                                         {"9223372036854775807", INT64_MAX, INT64_MAX},
                                         {"9223372036854775808", {}, 9223372036854775808u},
                                         {"18446744073709551615", {}, UINT64_MAX},
                                         {"18446744073709551616", {}, {}},
                                         {"1e20", {}, {}},
                                         {"-9223372036854775809", {}, {}}}) {
    const auto document = Document::Parse(c.text);
    ASSERT_TRUE(document.ok()) << c.text;
    EXPECT_EQ(document->root().integer(), c.integer) << c.text;
    EXPECT_EQ(document->root().unsigned_integer(), c.unsigned_integer) << c.text;
  }
}

TEST(Writer, MakesTextOfAnyBytes) {
  std::string out;
  AppendBytesAsString(
      "a\xF0\x9F\x98"
      "b\xFF\n",
      &out);
  EXPECT_EQ(out, "\"a\uFFFDb\uFFFD\\n\"");
  out.clear();
  AppendNumber(-std::numeric_limits<double>::infinity(), &out);
  EXPECT_TRUE(Document::Parse(out).ok()) << out;
}

}  // namespace
}  // namespace baleen::router::json
