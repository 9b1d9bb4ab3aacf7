// Sources that are meant to take the process down: each is refused, or costs no more than the
// limits say.
#include <functional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

std::string Repeat(std::string_view text, std::size_t times) {
  std::string result;
  for (std::size_t i = 0; i < times; ++i) result += text;
  return result;
}

std::string Numbered(std::size_t count, const std::function<std::string(std::size_t)>& line) {
  std::string result;
  for (std::size_t i = 0; i < count; ++i) result += line(i);
  return result;
}

struct HostileCase {
  std::string name;
  GrammarKind kind;
  std::string source;
  std::string refused;  // in the message; empty: it may be compiled
};

std::vector<HostileCase> TextCases() {
  constexpr auto kRegex = GrammarKind::kRegex;
  constexpr auto kLark = GrammarKind::kLark;
  const std::string parens = Repeat("(", 30'000) + "a" + Repeat(")", 30'000);
  return {
      {"regex_parens", kRegex, parens, "nested"},
      {"regex_alternatives", kRegex, Repeat("(a|aa|aaa|b?c*)*", 10'000), "limit"},
      {"regex_repeats", kRegex, "((a{1000}){1000}){1000}", ""},
      {"regex_exponential", kRegex, ".*a.{30}", ""},
      {"regex_back_reference", kRegex, R"((a)\1)", "backreferences"},
      {"regex_not_utf8", kRegex, "a\xff", "utf-8"},
      {"regex_empty", kRegex, "", "empty"},
      {"too_large", kRegex, Repeat("a", (256 << 10) + 1), "limit 262144"},
      {"lark_parens", kLark, "start: " + parens, "nested"},
      {"lark_regex_parens", kLark, "start: /" + parens + "/", "nested"},
      {"lark_chain", kLark,
       "start: r0\n" +
           Numbered(12'000, [](auto i) { return fmt::format("r{}: r{}\n", i, i + 1); }) +
           "r12000: \"a\"\n",
       ""},
      {"lark_doubling", kLark,
       "start: T0\n" +
           Numbered(60, [](auto i) { return fmt::format("T{}: T{} T{}\n", i, i + 1, i + 1); }) +
           "T60: \"a\"\n",
       "limit"},
      {"lark_matches_nothing", kLark, "start: a\na: b\nb: a\n", "no token"},
      {"lark_ambiguous", kLark, "start: a\na: a a | a a a | \"\" | \"x\"\n", ""},
      {"lark_repeat", kLark, "start: (x{1000}){1000}\nx: \"a\" | \"b\"\n", ""},
      {"lark_file", kLark, "%import /etc/passwd\nstart: \"a\"", "grammar"},
      {"lark_json_multiple", kLark, R"(start: %json {"type":"integer","multipleOf":1000003})",
       "multipleOf"},
  };
}

std::vector<HostileCase> SchemaCases() {
  constexpr auto kJson = GrammarKind::kJsonSchema;
  return {
      {"json_deep", kJson, Repeat(R"({"items":)", 20'000) + "{}" + Repeat("}", 20'000),
       "deeper than 64"},
      {"json_deep_strings", kJson, R"({"const":"[[[[\"{{{{"})", ""},
      {"json_large_enum", kJson,
       R"({"enum":[0)" + Numbered(20'000, [](auto i) { return fmt::format(",\"v{}\"", i); }) + "]}",
       "too big"},
      {"json_optional_properties", kJson,
       R"({"properties":{"x":{})" +
           Numbered(7'000, [](auto i) { return fmt::format(",\"p{}\":{{}}", i); }) + "}}",
       "optional properties"},
      {"json_count", kJson, R"({"type":"array","minItems":1000000000,"items":{"type":"null"}})",
       ""},
      {"json_length", kJson, R"({"type":"string","minLength":1000000000})", ""},
      {"json_multiple", kJson, R"({"type":"integer","multipleOf":1000003})", "multipleOf"},
      {"json_multiples", kJson,
       R"({"allOf":[{"multipleOf":997},{"multipleOf":991}],"type":"integer"})", "multipleOf"},
      {"json_any_of_all_of", kJson,
       R"({"allOf":[{"type":"object"})" +
           Numbered(20,
                    [](auto j) {
                      return R"(,{"anyOf":[{"type":"null"})" +
                             Numbered(10,
                                      [j](auto i) {
                                        return fmt::format(R"(,{{"properties":{{"p{}_{}":{{}}}}}})",
                                                           j, i);
                                      }) +
                             "]}";
                    }) +
           "]}",
       "too large"},
      {"json_cycle", kJson, R"({"$ref":"#"})", "no token"},
      {"json_cycle_of_two", kJson,
       R"({"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}})",
       "no token"},
      {"json_fetches", kJson, R"({"$ref":"http://127.0.0.1:1/schema.json"})", "does not fetch"},
      {"json_reads", kJson, R"({"$ref":"file:///etc/passwd"})", "does not fetch"},
      {"json_cut_character", kJson, R"({"type":"string","minLength":")" + Repeat("é", 100) + "\"}",
       "not supported"},
  };
}

class HostileGrammarTest : public testing::TestWithParam<HostileCase> {};

TEST_P(HostileGrammarTest, IsRefusedOrBounded) {
  const HostileCase& hostile = GetParam();
  // The net in time is for others: here the limits of work have to do.
  const auto grammar = Grammar::Compile(Tokens().vocabulary, {hostile.kind, hostile.source},
                                        {.compile_ms_max = 60'000});
  if (!hostile.refused.empty()) {
    EXPECT_TRUE(absl::IsInvalidArgument(grammar.status())) << grammar.status();
    EXPECT_THAT(std::string(grammar.status().message()), testing::HasSubstr(hostile.refused));
    EXPECT_LT(grammar.status().message().size(), 300u);
    return;
  }
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  const auto matcher = MustMatch(*grammar);
  std::vector<std::uint32_t> mask(matcher->vocabulary().mask_words());
  for (int step = 0; step < 40; ++step) {
    const absl::Status status = matcher->Mask(mask);
    if (!status.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      return;
    }
    std::size_t id = 0;
    while ((mask[id / 32] >> (id % 32) & 1) == 0) ++id;
    if (!matcher->Consume(static_cast<std::int32_t>(id)).ok()) return;
  }
}

std::string NameOf(const testing::TestParamInfo<HostileCase>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Texts, HostileGrammarTest, testing::ValuesIn(TextCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Schemas, HostileGrammarTest, testing::ValuesIn(SchemaCases()), NameOf);

// What the limits of work let through is given up on in time.
TEST(CompileTimeTest, IsLimited) {
  const auto grammar = Grammar::Compile(Tokens().vocabulary,
                                        {GrammarKind::kRegex, Repeat("(a|aa|aaa|b?c*)*", 3'000)},
                                        {.compile_ms_max = 1, .compile_fuel_max = 1'000'000});
  EXPECT_TRUE(absl::IsInvalidArgument(grammar.status()));
  EXPECT_THAT(std::string(grammar.status().message()), testing::HasSubstr("longer than 1 ms"));
  EXPECT_NE(MustCompile(GrammarKind::kRegex, "a"), nullptr) << "others go on";
}

// A sequence that asks too much of one mask fails; the limit is named.
TEST(MaskLimitTest, IsAnErrorForTheSequence) {
  const auto grammar =
      Grammar::Compile(Tokens().vocabulary, {GrammarKind::kRegex, "(.*a.*b.*c){20}"},
                       {.mask_fuel_max = 10'000, .lexer_states_max = 20});
  if (!grammar.ok()) {
    EXPECT_THAT(std::string(grammar.status().message()), testing::HasSubstr("too"));
    return;
  }
  const auto matcher = MustMatch(*grammar);
  std::vector<std::uint32_t> mask(matcher->vocabulary().mask_words());
  absl::Status status;
  for (int step = 0; step < 100 && status.ok(); ++step) {
    status = matcher->Mask(mask);
    if (status.ok()) status = matcher->Consume(Bytes("a")[0]);
  }
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace baleen::text
