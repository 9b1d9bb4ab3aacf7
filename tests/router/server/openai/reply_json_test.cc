// Answers of the OpenAI API: parts of a reply in, events or one JSON text out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "proto/contract/status.h"
#include "router/server/openai/json/document.h"
#include "router/server/openai/reply/answer_writer.h"
#include "router/server/openai/reply/error_body.h"
#include "router/server/openai/reply/event_writer.h"

namespace baleen::router::openai {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHead[] = R"("created":5,"model":"m","system_fingerprint":"fp_0123456789")";

TokenTable Tokens() {
  TokenTable table;
  table.Add({.bytes = "He", .exists = true});
  table.Add({.bytes = "\xF0\x9F", .exists = true});
  table.Add({.bytes = "\u00e9", .exists = true});
  return table;
}

AnswerHead Head(Api api) {
  return {.api = api,
          .request_id = "r1",
          .model = "m",
          .model_digest = "0123456789abcdef",
          .created = absl::FromUnixSeconds(5)};
}

ReplyTotals Totals() {
  return {.prompt_tokens = 7,
          .completion_tokens = 3,
          .reasoning_tokens = 1,
          .cached_tokens = 4,
          .seed = 9,
          .prefill_worker = "p",
          .decode_worker = "d",
          .kv_transfer_bytes = 2,
          .to_first_token = absl::Microseconds(10),
          .total = absl::Microseconds(20)};
}

constexpr char kUsage[] = R"("usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10,)"
                          R"("prompt_tokens_details":{"cached_tokens":4},)"
                          R"("completion_tokens_details":{"reasoning_tokens":1}},)"
                          R"("baleen":{"seed":9,"prefill_worker":"p","decode_worker":"d",)"
                          R"("time_to_first_token_us":10,"total_us":20,"kv_transfer_bytes":2})";

std::string Events(EventWriter& writer, ReplyPart part) {
  std::string out;
  writer.Append(std::move(part), &out);
  return out;
}

std::string Event(const std::string& rest) {
  return std::string(R"(data: {"id":"chatcmpl-r1","object":"chat.completion.chunk",)") + kHead +
         "," + rest + "\n\n";
}

TEST(EventWriter, WritesOneEventForWhatIsNew) {
  EventWriter writer(Head(Api::kChat), {.stream = true}, nullptr);
  EXPECT_EQ(Events(writer, {}),
            Event(R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},)"
                  R"("logprobs":null,"finish_reason":null}]})"));
  EXPECT_EQ(Events(writer, {.delta = {.reasoning = "\"a\n"}}),
            Event(R"("choices":[{"index":0,"delta":{"reasoning_content":"\"a\n"},)"
                  R"("logprobs":null,"finish_reason":null}]})"));
  EXPECT_EQ(Events(writer, {.token_ids = {1}}), "") << "nothing that a client sees";
  EXPECT_EQ(Events(writer, {.delta = {.content = "b"}, .finish = ChoiceFinish::kLength}),
            Event(R"("choices":[{"index":0,"delta":{"content":"b"},)"
                  R"("logprobs":null,"finish_reason":"length"}]})"));
  EXPECT_EQ(Events(writer, {.totals = Totals()}), "") << "nobody asked for the usage";
}

TEST(EventWriter, WritesUsageInAnEventOfItsOwn) {
  EventWriter writer(Head(Api::kChat), {.stream = true, .include_usage = true}, nullptr);
  EXPECT_EQ(Events(writer, {.choice = 1,
                            .delta = {.content = "b"},
                            .finish = ChoiceFinish::kStop,
                            .totals = Totals()}),
            Event(R"("choices":[{"index":1,"delta":{"role":"assistant","content":"b"},)"
                  R"("logprobs":null,"finish_reason":"stop"}],"usage":null})") +
                Event(std::string(R"("choices":[],)") + kUsage + "}"));
}

TEST(EventWriter, WritesPartsOfToolCalls) {
  EventWriter writer(Head(Api::kChat), {.stream = true}, nullptr);
  const std::string first =
      Events(writer, {.delta = {.tool_calls = {{0, "c1", "f", "{\"a"}, {1, "c2", "g", ""}}}});
  EXPECT_THAT(first, HasSubstr(R"("tool_calls":[{"index":0,"id":"c1","type":"function","function":)"
                               R"({"name":"f","arguments":"{\"a"}},{"index":1,"id":"c2",)"
                               R"("type":"function","function":{"name":"g","arguments":""}}])"));
  const std::string second = Events(
      writer, {.delta = {.tool_calls = {{1, "", "", "}"}}}, .finish = ChoiceFinish::kToolCalls});
  EXPECT_THAT(second, HasSubstr(R"("delta":{"tool_calls":[{"index":1,"function":)"
                                R"({"arguments":"}"}}]})"));
  EXPECT_THAT(second, HasSubstr(R"("finish_reason":"tool_calls")"));
}

TEST(EventWriter, WritesTokenIdsAndLogprobs) {
  const TokenTable table = Tokens();
  EventWriter writer(Head(Api::kChat), {.stream = true, .return_token_ids = true}, &table);
  const std::string event =
      Events(writer, {.token_ids = {1},
                      .logprobs = {{.sampled = -0.5f, .top = {{0, -INFINITY}, {1, -0.5f}}}},
                      .prompt_token_ids = {4, 5}});
  EXPECT_THAT(event, HasSubstr(R"("prompt_token_ids":[4,5],"choices":[)"));
  EXPECT_THAT(event, HasSubstr(R"("token_ids":[1]}]})"));
  EXPECT_THAT(event,
              HasSubstr("\"logprobs\":{\"content\":[{\"token\":\"\uFFFD\",\"bytes\":[240,159],"
                        "\"logprob\":-0.5,\"top_logprobs\":[{\"token\":\"He\",\"bytes\":[72,101],"
                        "\"logprob\":-9999},{\"token\":\"\uFFFD\",\"bytes\":[240,159],"
                        "\"logprob\":-0.5}]}],\"refusal\":null}"));
}

TEST(EventWriter, EchoesThePromptOnceForEachChoice) {
  const TokenTable table = Tokens();
  EventWriter writer(Head(Api::kCompletions), {.stream = true}, &table);
  EXPECT_THAT(Events(writer, {.delta = {.content = "x"},
                              .token_ids = {2},
                              .logprobs = {{.sampled = -1.0f}},
                              .prompt_text = "He",
                              .prompt_logprobs = {{.id = 0}}}),
              HasSubstr("\"choices\":[{\"index\":0,\"text\":\"Hex\",\"logprobs\":{\"tokens\":"
                        "[\"He\",\"\u00e9\"],\"token_logprobs\":[null,-1],\"top_logprobs\":"
                        "[null,{}],\"text_offset\":[0,2]},\"finish_reason\":null}]}"));
  EXPECT_THAT(Events(writer, {.choice = 1, .delta = {.content = "y"}}),
              HasSubstr(R"("index":1,"text":"Hey","logprobs":null)"));
  EXPECT_THAT(Events(writer, {.delta = {.content = "z"},
                              .token_ids = {1},
                              .logprobs = {{.sampled = -2.0f, .top = {{1, -2.0f}, {7, -3.0f}}}}}),
              HasSubstr(R"("text":"z","logprobs":{"tokens":["bytes:\\xf0\\x9f"],)"
                        R"("token_logprobs":[-2],"top_logprobs":[{"bytes:\\xf0\\x9f":-2,)"
                        R"("token_id:7":-3}],"text_offset":[3]})"));
}

TEST(AnswerWriter, AddsUpParts) {
  AnswerWriter writer({.return_token_ids = true}, nullptr);
  writer.Add(Api::kChat, {.choice = 1,
                          .delta = {.reasoning = "r", .content = "a"},
                          .token_ids = {1, 2},
                          .prompt_token_ids = {9}});
  writer.Add(Api::kChat, {.delta = {.tool_calls = {{0, "c1", "f", "{"}}}});
  writer.Add(Api::kChat, {.delta = {.tool_calls = {{0, "", "", "}"}, {1, "c2", "g", "{}"}}},
                          .finish = ChoiceFinish::kToolCalls});
  writer.Add(Api::kChat, {.choice = 1,
                          .delta = {.content = "b"},
                          .token_ids = {3},
                          .finish = ChoiceFinish::kStop,
                          .totals = Totals()});
  EXPECT_EQ(
      writer.Finish(Head(Api::kChat)),
      std::string(R"({"id":"chatcmpl-r1","object":"chat.completion",)") + kHead +
          R"(,"prompt_token_ids":[9],"choices":[{"index":0,"message":{"role":"assistant",)"
          R"("content":null,"reasoning_content":null,"refusal":null,"tool_calls":[{"id":"c1",)"
          R"("type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2",)"
          R"("type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,)"
          R"("finish_reason":"tool_calls","token_ids":[]},{"index":1,"message":)"
          R"({"role":"assistant","content":"ab","reasoning_content":"r","refusal":null},)"
          R"("logprobs":null,"finish_reason":"stop","token_ids":[1,2,3]}],)" +
          kUsage + "}");
}

TEST(AnswerWriter, PutsLogprobsOfPromptAndReplyInOneList) {
  const TokenTable table = Tokens();
  AnswerWriter writer({}, &table);
  writer.Add(Api::kCompletions,
             {.prompt_text = "He\u00e9",
              .prompt_logprobs = {{.id = 0}, {.id = 2, .logprobs = TokenLogprobs{.sampled = -1}}}});
  writer.Add(Api::kCompletions, {.delta = {.content = "He"},
                                 .token_ids = {0},
                                 .logprobs = {{.sampled = -2}},
                                 .finish = ChoiceFinish::kLength,
                                 .totals = Totals()});
  const std::string answer = writer.Finish(Head(Api::kCompletions));
  EXPECT_THAT(answer, HasSubstr("\"text\":\"He\u00e9He\",\"logprobs\":{\"tokens\":[\"He\","
                                "\"\u00e9\",\"He\"],\"token_logprobs\":[null,-1,-2],"
                                "\"top_logprobs\":[null,{},{}],\"text_offset\":[0,2,3]}"));
  EXPECT_TRUE(json::Document::Parse(answer).ok());
}

TEST(AnswerWriter, WritesPromptLogprobsApartWhenAskedFor) {
  const TokenTable table = Tokens();
  AnswerWriter writer({.prompt_logprobs_apart = true}, &table);
  writer.Add(Api::kCompletions,
             {.prompt_logprobs = {{.id = 0},
                                  {.id = 2, .logprobs = TokenLogprobs{-1, {{2, -1}, {0, -2}}}}}});
  writer.Add(Api::kCompletions, {.finish = ChoiceFinish::kStop, .totals = Totals()});
  const std::string answer = writer.Finish(Head(Api::kCompletions));
  EXPECT_THAT(answer, HasSubstr("\"prompt_logprobs\":[null,{\"2\":{\"logprob\":-1,"
                                "\"decoded_token\":\"\u00e9\"},\"0\":{\"logprob\":-2,"
                                "\"decoded_token\":\"He\"}}],\"logprobs\":null"));
}

TEST(ErrorBody, SaysWhatClientsOfTheApiExpect) {
  using contract::MakeStatus;
  using contract::Reason;
  EXPECT_EQ(ErrorBody(MakeStatus(Reason::kInvalidRequest, "messages[0].role: it is missing")),
            R"({"error":{"message":"messages[0].role: it is missing",)"
            R"("type":"invalid_request_error","param":"messages[0].role",)"
            R"("code":"invalid_request"}})");
  EXPECT_EQ(ErrorBody(MakeStatus(Reason::kNoWorker, "no: worker")),
            R"({"error":{"message":"no: worker","type":"server_error","param":null,)"
            R"("code":"no_worker"}})");
  EXPECT_EQ(ErrorBody(absl::UnknownError("\xFF")),
            "{\"error\":{\"message\":\"\uFFFD\",\"type\":\"server_error\",\"param\":null,"
            "\"code\":\"internal\"}}");
  const http::Response busy =
      ErrorResponse(MakeStatus(Reason::kQueueFull, "full"), absl::Milliseconds(1200));
  EXPECT_EQ(busy.code, 429);
  ASSERT_EQ(busy.fields.size(), 2u);
  EXPECT_EQ(busy.fields[0].value, "2");
  EXPECT_EQ(busy.fields[1].value, "1200");
  EXPECT_THAT(busy.body, HasSubstr("rate_limit_error"));
}

// A name for every row of the table, and the codes that clients act upon.
TEST(ErrorBody, HasEveryReason) {
  for (const contract::ReasonRow& row : contract::ReasonTable()) {
    const http::Response response = ErrorResponse(contract::MakeStatus(row.reason, "why"));
    EXPECT_EQ(response.code, row.http);
    EXPECT_THAT(response.body, HasSubstr("\"code\":\"" + std::string(row.name) + "\""));
    EXPECT_NE(http::PhraseOf(row.http), "Unknown") << row.http;
  }
}

}  // namespace
}  // namespace baleen::router::openai
