// What grammars of JSON schemas let through: texts that must and must not pass, and replies made of
// random allowed tokens, judged by a checker that knows nothing of grammars.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/grammar/grammar_test_util.h"

namespace baleen::text {
namespace {

using Json = nlohmann::ordered_json;

struct SchemaCase {
  std::string name;
  std::string schema;
  std::vector<std::string> accepted;
  std::vector<std::string> refused;
};

// Recursion, combination.
std::vector<SchemaCase> StructureCases() {
  return {
      {"empty_schema", "{}", {"1", "\"a\"", "[]", "{\"a\":[null]}"}, {"", "a", "[1,]", "{a:1}"}},
      {"true_schema", "true", {"null", "{}"}, {"nul", "{}}"}},
      {"any_object", R"({"type":"object"})", {"{}", "{\"a\": {\"b\": 1}}"}, {"[]", "1", "{\"a\"}"}},
      {"empty_object",
       R"({"type":"object","properties":{},"additionalProperties":false})",
       {"{}", "{ }"},
       {"{\"a\":1}", "[]"}},
      {"nested",
       R"({"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"array",
          "items":{"type":"object","properties":{"c":{"type":"boolean"}},"required":["c"],
          "additionalProperties":false}}},"required":["b"],"additionalProperties":false}},
          "required":["a"],"additionalProperties":false})",
       {R"({"a":{"b":[]}})", R"({"a":{"b":[{"c":true},{"c":false}]}})"},
       {R"({"a":{}})", R"({"a":{"b":[{"c":1}]}})", R"({"a":{"b":[{}]}})", R"({"b":{}})"}},
      {"recursive_root",
       R"({"type":"object","properties":{"value":{"type":"integer"},"children":{"type":"array",
          "items":{"$ref":"#"}}},"required":["value"],"additionalProperties":false})",
       {R"({"value":1})", R"({"value":1,"children":[{"value":2,"children":[{"value":3}]}]})"},
       {R"({"value":1,"children":[{}]})", R"({"children":[]})", R"({"value":1,"children":[1]})"}},
      {"mutual_recursion",
       R"({"$ref":"#/$defs/expr","$defs":{"expr":{"anyOf":[{"type":"integer"},
          {"$ref":"#/$defs/sum"}]},
          "sum":{"type":"object","properties":{"left":{"$ref":"#/$defs/expr"},
          "right":{"$ref":"#/$defs/expr"}},
          "required":["left","right"],"additionalProperties":false}}})",
       {"1", R"({"left":1,"right":{"left":2,"right":3}})"},
       {R"({"left":1})", R"({"left":"1","right":2})"}},
      {"linked_list",
       R"({"$ref":"#/definitions/node","definitions":{"node":{"type":["object","null"],
          "properties":{
          "next":{"$ref":"#/definitions/node"}},"required":["next"],
          "additionalProperties":false}}})",
       {"null", R"({"next":{"next":null}})"},
       {"{}", R"({"next":1})"}},
      {"pointer_with_escapes",
       R"({"$ref":"#/$defs/a~1b%25","$defs":{"a/b%":{"const":"x"}}})",
       {"\"x\""},
       {"\"y\""}},
      {"any_of",
       R"({"anyOf":[{"type":"string","maxLength":2},{"type":"integer","minimum":5},
          {"type":"null"}]})",
       {"\"ab\"", "5", "null"},
       {"\"abc\"", "4", "true"}},
      {"one_of_disjoint",
       R"({"oneOf":[{"type":"object","properties":{"kind":{"const":"cat"},
          "lives":{"type":"integer"}},
          "required":["kind","lives"],"additionalProperties":false},{"type":"object","properties":{
          "kind":{"const":"dog"}},"required":["kind"],"additionalProperties":false}],
          "discriminator":{"propertyName":"kind"}})",
       {R"({"kind":"cat","lives":9})", R"({"kind":"dog"})"},
       {R"({"kind":"dog","lives":9})", R"({"kind":"cow"})"}},
      {"all_of",
       R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
          {"properties":{"a":{"minimum":3}, "b":{"type":"string"}},"required":["b"]}]})",
       {R"({"a":3,"b":""})"},
       {R"({"a":2,"b":""})", R"({"a":3})"}},
      {"ref_with_siblings",
       R"({"$ref":"#/$defs/n","minimum":10,"$defs":{"n":{"type":"integer","maximum":20}}})",
       {"10", "20"},
       {"9", "21"}},
  };
}

// Enumerations, strings, numbers.
std::vector<SchemaCase> ValueCases() {
  return {
      {"enum_of_many_types",
       R"({"enum":["a",1,null,true,{"x":[1,2]},"ü"]})",
       {"\"a\"", "1", "null", "true", R"({"x":[1,2]})", "\"ü\""},
       {"\"b\"", "2", "false", R"({"x":[2,1]})"}},
      {"const_object", R"({"const":{"a":1}})", {R"({"a":1})"}, {"{}", R"({"a":2})"}},
      {"const_text", R"({"const":"say \"hi\"\n"})", {R"("say \"hi\"\n")"}, {"\"say hi\""}},
      {"pattern",
       R"({"type":"string","pattern":"^[A-Z]{2}-[0-9]{3,}$"})",
       {"\"AB-123\"", "\"AB-12345\""},
       {"\"AB-12\"", "\"xAB-123\"", "\"AB-123x\""}},
      {"pattern_anywhere",
       R"({"type":"string","pattern":"b+","maxLength":10})",
       {"\"abc\"", "\"b\""},
       {"\"ac\"", "\"\""}},
      {"lengths_count_characters",
       R"({"type":"string","minLength":2,"maxLength":3})",
       {"\"ab\"", "\"äöü\"", "\"😀😀\""},
       {"\"a\"", "\"abcd\"", "\"😀\""}},
      {"format_date",
       R"({"type":"string","format":"date"})",
       {"\"2024-02-29\""},
       {"\"2024-13-01\""}},
      {"format_date_time",
       R"({"type":"string","format":"date-time"})",
       {"\"2024-01-31T23:59:59Z\""},
       {"\"2024-01-31\""}},
      {"format_uuid",
       R"({"type":"string","format":"uuid"})",
       {"\"123e4567-e89b-12d3-a456-426614174000\""},
       {"\"123e4567\""}},
      {"format_email", R"({"type":"string","format":"email"})", {"\"a@b.c\""}, {"\"a.b.c\""}},
      {"format_ipv4",
       R"({"type":"string","format":"ipv4"})",
       {"\"10.0.0.255\""},
       {"\"10.0.0.256\""}},
      {"integer", R"({"type":"integer"})", {"0", "-7", "123456789"}, {"1.5", "01", "+1", "1e3"}},
      {"integer_bounds",
       R"({"type":"integer","minimum":-3,"exclusiveMaximum":12})",
       {"-3", "0", "11"},
       {"-4", "12", "100"}},
      {"number",
       R"({"type":"number"})",
       {"0", "-1.5", "2e10", "3.0E-2"},
       {"1.", ".5", "NaN", "1e"}},
      {"number_bounds",
       R"({"type":"number","exclusiveMinimum":0,"maximum":1})",
       {"0.5", "1", "0.001"},
       {"0", "1.01", "-0.5"}},
      {"multiple_of",
       R"({"type":"integer","multipleOf":7,"minimum":1,"maximum":100})",
       {"7", "98"},
       {"8", "105", "0"}},
      {"unicode",
       R"({"type":"object","properties":{"größe":{"enum":["klein","große 😀","大"]}},
          "required":["größe"],"additionalProperties":false})",
       {R"({"größe":"große 😀"})", R"({"größe":"大"})"},
       {R"({"groesse":"klein"})", R"({"größe":"小"})"}},
      {"escapes_are_text",
       R"({"type":"string"})",
       {R"("a\"b\\c\n\u0000")", "\"</think>\""},
       {"\"a\nb\"", R"("\x")", "\"a"}},
  };
}

// Members and items.
std::vector<SchemaCase> ContainerCases() {
  return {
      {"items_bounds",
       R"({"type":"array","items":{"type":"integer","minimum":0,"maximum":9},"minItems":2,
          "maxItems":4})",
       {"[1,2]", "[1, 2, 3, 4]"},
       {"[]", "[1]", "[1,2,3,4,5]", "[1,10]"}},
      {"prefix_items",
       R"({"type":"array","prefixItems":[{"type":"string"},{"type":"integer"}],"items":false,
          "minItems":2})",
       {R"(["a",1])"},
       {R"(["a"])", R"([1,"a"])", R"(["a",1,2])"}},
      {"optional_members",
       R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"},
          "c":{"type":"integer"}},"required":["b"],"additionalProperties":false})",
       {R"({"b":1})", R"({"a":1,"b":2,"c":3})", R"({"b":1,"c":3})"},
       {"{}", R"({"a":1})", R"({"a":1,"b":2,"d":3})", R"({"b":1,"b":2})"}},
      {"additional_schema",
       R"({"type":"object","properties":{"id":{"type":"integer"}},"required":["id"],
          "additionalProperties":{"type":"string"}})",
       {R"({"id":1})", R"({"id":1,"x":"y"})"},
       {R"({"id":1,"x":2})", R"({"x":"y"})"}},
      {"pattern_properties",
       R"({"type":"object","patternProperties":{"^n_":{"type":"integer"}},
          "additionalProperties":false})",
       {"{}", R"({"n_a":1})"},
       {R"({"n_a":"1"})", R"({"m":1})"}},
      {"count_of_members",
       R"({"type":"object","additionalProperties":{"type":"null"},"minProperties":1,
          "maxProperties":2})",
       {R"({"a":null})", R"({"a":null,"b":null})"},
       {"{}", R"({"a":null,"b":null,"c":null})"}},
      {"map_of_lists",
       R"({"type":"object","additionalProperties":{"type":"array","items":{"enum":["x","y"]},
          "maxItems":3}})",
       {"{}", R"({"k":["x","y"]})"},
       {R"({"k":["z"]})", R"({"k":"x"})"}},
      {"ticket",
       R"({"$schema":"https://json-schema.org/draft/2020-12/schema","title":"Ticket",
          "type":"object",
          "properties":{"id":{"type":"string","pattern":"^T-[0-9]+$","description":"its name"},
          "priority":{"type":"integer","minimum":1,"maximum":5,"default":3},
          "labels":{"type":"array","items":{"type":"string","minLength":1,"maxLength":8},
          "maxItems":3},
          "owner":{"anyOf":[{"$ref":"#/$defs/Person"},{"type":"null"}]}},
          "required":["id","priority","owner"],"additionalProperties":false,
          "$defs":{"Person":{"type":"object","properties":{"name":{"type":"string","maxLength":12},
          "born":{"type":"string","format":"date"}},"required":["name","born"],
          "additionalProperties":false}}})",
       {R"({"id":"T-1","priority":5,"owner":null})",
        R"({"id":"T-1","priority":1,"labels":["a"],"owner":{"name":"n","born":"2000-01-01"}})"},
       {R"({"id":"T-","priority":5,"owner":null})", R"({"id":"T-1","priority":6,"owner":null})",
        R"({"id":"T-1","priority":5})"}},
  };
}

class JsonSchemaTest : public testing::TestWithParam<SchemaCase> {};

TEST_P(JsonSchemaTest, TextsPassOrDoNot) {
  const auto grammar = MustCompile(GrammarKind::kJsonSchema, GetParam().schema);
  ASSERT_NE(grammar, nullptr);
  const Json schema = Json::parse(GetParam().schema);
  for (const std::string& text : GetParam().accepted) {
    EXPECT_TRUE(Accepts(grammar, text)) << text;
    EXPECT_EQ(WhatIsWrong(Json::parse(text), schema), "") << text;
  }
  for (const std::string& text : GetParam().refused) EXPECT_FALSE(Accepts(grammar, text)) << text;
}

TEST_P(JsonSchemaTest, RandomRepliesAreValid) {
  const auto grammar = MustCompile(GrammarKind::kJsonSchema, GetParam().schema);
  ASSERT_NE(grammar, nullptr);
  const Json schema = Json::parse(GetParam().schema);
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const std::string reply = RandomReply(grammar, seed);
    const Json value = Json::parse(reply, nullptr, /*allow_exceptions=*/false);
    ASSERT_FALSE(value.is_discarded()) << "seed " << seed << ": " << reply;
    EXPECT_EQ(WhatIsWrong(value, schema), "") << "seed " << seed << ": " << reply;
  }
}

std::string NameOf(const testing::TestParamInfo<SchemaCase>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Structure, JsonSchemaTest, testing::ValuesIn(StructureCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Values, JsonSchemaTest, testing::ValuesIn(ValueCases()), NameOf);
INSTANTIATE_TEST_SUITE_P(Containers, JsonSchemaTest, testing::ValuesIn(ContainerCases()), NameOf);

// A checker that finds nothing wrong would make the walks worthless.
TEST(SchemaCheckerTest, FindsWhatIsWrong) {
  const auto wrong = [](const char* value, const char* schema) {
    return WhatIsWrong(Json::parse(value), Json::parse(schema));
  };
  EXPECT_NE(wrong("1", R"({"type":"string"})"), "");
  EXPECT_NE(wrong("[1,2]", R"({"maxItems":1})"), "");
  EXPECT_NE(wrong(R"({"a":1})", R"({"additionalProperties":false})"), "");
  EXPECT_NE(wrong(R"({"a":{"b":1}})", R"({"properties":{"a":{"properties":{"b":false}}}})"), "");
  EXPECT_NE(wrong("3", R"({"oneOf":[{"minimum":1},{"minimum":2}]})"), "");
  EXPECT_NE(wrong("\"ab\"", R"({"$ref":"#/$defs/x","$defs":{"x":{"maxLength":1}}})"), "");
}

// A model that has lost its way would write blanks until its tokens are used up.
TEST(JsonBlanksTest, AreLimited) {
  const auto grammar = MustCompile(GrammarKind::kJsonSchema, R"({"type":"array","items":{}})");
  EXPECT_TRUE(Accepts(grammar, "[" + std::string(128, ' ') + "]"));
  EXPECT_FALSE(Accepts(grammar, "[" + std::string(129, ' ') + "]"));
}

TEST(JsonSchemaErrorsTest, NameTheKeywordAndNotTheSchema) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"not":{"type":"string"}})", "not"},
      {R"({"type":"array","uniqueItems":true})", "uniqueItems"},
      {R"({"if":{},"then":{}})", "if"},
      {R"({"oneOf":[{"minimum":1},{"minimum":2}]})", "oneOf"},
      {R"({"type":"strin"})", "strin"},
      {R"({"type":"string","format":"zip"})", "zip"},
      {R"({"$ref":"#/$defs/none"})", "none"},
      {R"({"type":"string","minLength":-1})", "minLength"},
      {R"({"type":"integer","minimum":5,"maximum":4})", "minimum"},
      {R"({"type":)", "JSON schema"},
      {"[]", "neither an object"},
      {"false", "neither an object"},
      {"", "JSON schema"},
  };
  for (const auto& [schema, expected] : cases) {
    const auto grammar = Grammar::Compile(Tokens().vocabulary, {GrammarKind::kJsonSchema, schema});
    EXPECT_TRUE(absl::IsInvalidArgument(grammar.status())) << schema << grammar.status();
    EXPECT_THAT(std::string(grammar.status().message()), testing::HasSubstr(expected)) << schema;
    EXPECT_LT(grammar.status().message().size(), 300u);
  }
}

}  // namespace
}  // namespace baleen::text
