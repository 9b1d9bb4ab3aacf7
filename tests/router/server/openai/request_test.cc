// Bodies of the OpenAI API: the message that each becomes, or what is said of what is wrong.
#include "router/server/openai/request/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "google/protobuf/text_format.h"

namespace baleen::router::openai {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Short(const google::protobuf::Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string Chat(const std::string& body) {
  const auto read = ReadChatBody(body);
  return read.ok() ? Short(read->message) : std::string(read.status().message());
}

std::string Completion(const std::string& body) {
  const auto read = ReadCompletionBody(body);
  return read.ok() ? Short(read->message) : std::string(read.status().message());
}

// A chat body with one user message and `fields`.
std::string With(const std::string& fields) {
  return R"({"messages": [{"role": "user", "content": "hi"}])" +
         (fields.empty() ? "" : ", " + fields) + "}";
}

constexpr char kHi[] = "messages { role: \"user\" content: \"hi\" }";

TEST(ChatBody, BecomesTheMessageThatGrpcTakes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "sampling { temperature: 1 } stop { }"},
      {R"("temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.25)",
       "sampling { temperature: 0 top_p: 0.5 min_p: 0.25 } stop { }"},
      {R"("temperature": null, "user": "u", "metadata": {"a": 1}, "store": false)",
       "sampling { temperature: 1 } stop { }"},
      {R"("frequency_penalty": -2, "presence_penalty": 2, "repetition_penalty": 1.5)",
       "sampling { temperature: 1 repetition_penalty: 1.5 frequency_penalty: -2 "
       "presence_penalty: 2 } stop { }"},
      {R"("seed": 18446744073709551615)",
       "sampling { temperature: 1 seed: 18446744073709551615 } stop { }"},
      {R"("seed": -1)", "sampling { temperature: 1 seed: 18446744073709551615 } stop { }"},
      {R"("logit_bias": {"5": -100, "17": 1.5})",
       "sampling { temperature: 1 logit_bias { token_id: 5 bias: -100 } "
       "logit_bias { token_id: 17 bias: 1.5 } } stop { }"},
      {R"("stop": "x", "max_completion_tokens": 7)",
       "sampling { temperature: 1 } stop { max_tokens: 7 text: \"x\" }"},
      {R"("stop": ["a", "b"], "max_tokens": 7, "max_completion_tokens": 7, "min_tokens": 2)",
       "sampling { temperature: 1 } stop { max_tokens: 7 text: \"a\" text: \"b\" min_tokens: 2 }"},
      {R"("stop_token_ids": [1, 2], "ignore_eos": true)",
       "sampling { temperature: 1 } stop { ignore_eos: true token_ids: 1 token_ids: 2 }"},
      {R"("model": "m", "n": 3, "priority": 9)",
       "sampling { temperature: 1 } stop { } choices: 3 priority: 9"},
      {R"("logprobs": true)", "sampling { temperature: 1 } stop { } logprobs: 0"},
      {R"("logprobs": true, "top_logprobs": 5)",
       "sampling { temperature: 1 } stop { } logprobs: 5"},
      {R"("logprobs": false)", "sampling { temperature: 1 } stop { }"},
      {R"("response_format": {"type": "text"})", "sampling { temperature: 1 } stop { }"},
      {R"("response_format": {"type": "json_object"})",
       "sampling { temperature: 1 } stop { } format { json_object: true }"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": true,
          "schema": {"type": "object", "properties": {"z": {}, "a": {"minimum": 1.0}}}}})",
       "sampling { temperature: 1 } stop { } format { json_schema: "
       "\"{\\\"type\\\":\\\"object\\\",\\\"properties\\\":{\\\"z\\\":{},\\\"a\\\":"
       "{\\\"minimum\\\":1}}}\" }"},
      {R"("response_format": {"type": "regex", "regex": "a+"})",
       "sampling { temperature: 1 } stop { } format { regex: \"a+\" }"},
      {R"("response_format": {"type": "lark", "lark": "start: /a/"})",
       "sampling { temperature: 1 } stop { } format { lark: \"start: /a/\" }"},
      {R"("tools": [{"type": "function", "function": {"name": "f", "description": "d",
          "parameters": {"b": 1, "a": 2}, "strict": true}}], "tool_choice": "required",
          "parallel_tool_calls": false)",
       "sampling { temperature: 1 } stop { } tools { name: \"f\" description: \"d\" parameters: "
       "\"{\\\"b\\\":1,\\\"a\\\":2}\" } tool_choice { mode: MODE_REQUIRED } single_tool_call: "
       "true"},
      {R"("tools": [{"type": "function", "function": {"name": "f"}}],
          "tool_choice": {"type": "function", "function": {"name": "f"}})",
       "sampling { temperature: 1 } stop { } tools { name: \"f\" } tool_choice { mode: "
       "MODE_REQUIRED name: \"f\" }"},
      {R"("tool_choice": "auto", "modalities": ["text"])",
       "sampling { temperature: 1 } stop { } tool_choice { }"},
  };
  for (const auto& [fields, expected] : cases) {
    std::string text = Chat(With(fields));
    // The model stands before what all cases have.
    if (text.starts_with("model: \"m\" ")) text = text.substr(11);
    EXPECT_EQ(text, std::string(kHi) + " " + expected) << fields;
  }
}

TEST(ChatBody, ReadsEveryKindOfMessage) {
  EXPECT_THAT(Chat(R"({"messages": [
    {"role": "developer", "content": "d", "name": "n"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": null, "refusal": null, "reasoning_content": "r",
     "tool_calls": [
      {"id": "1", "index": 0, "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "x"}]})"),
              StartsWith("messages { role: \"developer\" content: \"d\" } "
                         "messages { role: \"user\" content: \"a\\nb\" } "
                         "messages { role: \"assistant\" tool_calls { id: \"1\" name: \"f\" "
                         "arguments: \"{}\" } } "
                         "messages { role: \"tool\" content: \"x\" tool_call_id: \"1\" }"));
}

TEST(ChatBody, SaysWhatIsWrongAndWhere) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("temperatur": 1)", "temperatur: there is no such field"},
      {R"("stream_options": {"a": 1}, "stream": true)", "stream_options.a: there is no such field"},
      {R"("stream_options": {"include_usage": true})", "stream_options: only with stream: true"},
      {R"("functions": [])", "functions: it is deprecated: use tools and tool_choice"},
      {R"("function_call": "auto")", "function_call: it is deprecated: use tools and tool_choice"},
      {R"("n": 2147483648)", ""},
      {R"("n": 4294967296)", "n: 4294967296 is not an integer from 0 to 4294967295"},
      {R"("n": -1)", "n: -1 is not an integer from 0 to 4294967295"},
      {R"("n": 0)", "n: 0 is below 1"},
      {R"("n": 1.5)", "n: 1.5 is not an integer from 0 to 4294967295"},
      {R"("n": "1")", "n: it is a string, not an integer"},
      {R"("n": true)", "n: it is a boolean, not an integer"},
      {R"("temperature": 1e39)", "temperature: 1e+39 is too large"},
      {R"("temperature": "hot")", "temperature: it is a string, not a number"},
      {R"("max_tokens": 1e10)", "max_tokens: 10000000000 is not an integer from 0 to 4294967295"},
      {R"("max_tokens": 1, "max_completion_tokens": 2)",
       "max_completion_tokens: max_tokens and max_completion_tokens are the same thing, and "
       "differ"},
      {R"("top_k": -2)", "top_k: -2 is below -1, all"},
      {R"("seed": 1.5)", "seed: 1.5 is not an integer of 64 bits"},
      {R"("logit_bias": [1])", "logit_bias: it is an array, not an object"},
      {R"("logit_bias": {"a": 1})", "logit_bias.a: the name is not a token id"},
      {R"("logit_bias": {"-1": 1})", "logit_bias.-1: the name is not a token id"},
      {R"("logit_bias": {"1": "x"})", "logit_bias.1: it is a string, not a number"},
      {R"("stop": 5)", "stop: it is a number, not a string or an array of strings"},
      {R"("stop": ["a", 5])", "stop[1]: it is a number, not a string"},
      {R"("stop": [""," "," "," "," "," "," "," "," "," "," "," "," "," "," "," "," "])",
       "stop: it has more than 16 texts"},
  };
  for (const auto& [fields, expected] : cases) {
    if (expected.empty()) {
      EXPECT_THAT(Chat(With(fields)), StartsWith(kHi)) << fields;
    } else {
      EXPECT_EQ(Chat(With(fields)), "invalid_request: " + expected) << fields;
    }
  }
}

TEST(ChatBody, SaysWhatIsWrongWithFormatsAndTools) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"("store": true)", "store: nothing is stored here: only false"},
      {R"("top_logprobs": 2)", "top_logprobs: only with logprobs: true"},
      {R"("logprobs": 2)", "logprobs: it is a number, not a boolean"},
      {R"("response_format": "json")", "response_format: it is a string, not an object"},
      {R"("response_format": {"type": "xml"})",
       "response_format.type: it is none of text, json_object, json_schema, regex and lark"},
      {R"("response_format": {"type": "json_schema"})",
       "response_format.json_schema: its schema is missing"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"schema": 5}})",
       "response_format.json_schema.schema: it is a number, not a JSON Schema"},
      {R"("response_format": {"type": "regex"})",
       "response_format: the field \"regex\" is missing"},
      {R"("tools": [{"type": "retrieval"}])", "tools[0].type: only \"function\""},
      {R"("tools": [{"type": "function"}])", "tools[0]: its function.name is missing"},
      {R"("tools": [{"function": {"name": "f", "parameters": []}}])",
       "tools[0].function.parameters: it is an array, not a JSON Schema of an object"},
      {R"("tool_choice": "maybe")",
       "tool_choice: it is none of auto, none, required and a function"},
      {R"("tool_choice": {"type": "function"})", "tool_choice: its function.name is missing"},
      {R"("modalities": ["audio"])", "modalities: only [\"text\"]"},
  };
  for (const auto& [fields, expected] : cases) {
    EXPECT_EQ(Chat(With(fields)), "invalid_request: " + expected) << fields;
  }
}

TEST(ChatBody, SaysWhatIsWrongWithMessages) {
  const std::vector<std::pair<std::string, std::string>> messages = {
      {"5", "messages: it is a number, not an array of messages"},
      {"[5]", "messages[0]: it is a number, not an object"},
      {"[{}]", "messages[0].role: it is missing"},
      {R"([{"role": 5}])", "messages[0].role: it is a number, not a string"},
      {R"([{"role": "user", "content": 5}])",
       "messages[0].content: it is a number, not a string or an array of parts"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
       "messages[0].content[0].type: only parts of type text: no other is served"},
      {R"([{"role": "user", "content": [{"text": "x"}]}])",
       "messages[0].content[0].type: it is missing"},
      {R"([{"role": "assistant", "function_call": {}}])",
       "messages[0].function_call: it is deprecated: use tool_calls"},
      {R"([{"role": "assistant", "tool_calls": [{"function": {"name": 1}}]}])",
       "messages[0].tool_calls[0].function.name: it is a number, not a string"},
  };
  for (const auto& [value, expected] : messages) {
    EXPECT_EQ(Chat("{\"messages\": " + value + "}"), "invalid_request: " + expected);
  }
}

TEST(ChatBody, SaysWhatIsWrongWithTheWhole) {
  EXPECT_EQ(Chat("[]"), "invalid_request: body: it is an array, not an object");
  std::string many = "[";
  for (int i = 0; i < 1025; ++i) many += i == 0 ? "{}" : ",{}";
  EXPECT_EQ(Chat("{\"messages\": " + many + "]}"),
            "invalid_request: messages: it has 1025 entries, limit 1024");
  EXPECT_THAT(Chat("{\"" + std::string(1000, 'x') + "\": 1}"),
              HasSubstr(std::string(64, 'x') + "...: there is no such field"));
}

TEST(CompletionBody, BecomesTheMessageThatGrpcTakes) {
  const std::string rest = "sampling { temperature: 1 } stop { max_tokens: 16 }";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"prompt": "a"})", "text: \"a\" " + rest},
      {R"({"prompt": ["a"]})", "text: \"a\" " + rest},
      {R"({"prompt": [1, 2]})", "token_ids { ids: 1 ids: 2 } " + rest},
      {R"({"prompt": [[1, 2]]})", "token_ids { ids: 1 ids: 2 } " + rest},
      {R"({"prompt": "a", "echo": true, "best_of": 1, "suffix": null})",
       "text: \"a\" " + rest + " echo: true"},
      {R"({"prompt": "a", "logprobs": 2})", "text: \"a\" " + rest + " logprobs: 2"},
      {R"({"prompt": "a", "logprobs": 2, "echo": true})",
       "text: \"a\" " + rest + " logprobs: 2 prompt_logprobs: 2 echo: true"},
      {R"({"prompt": "a", "prompt_logprobs": 3})", "text: \"a\" " + rest + " prompt_logprobs: 3"},
  };
  for (const auto& [body, expected] : cases) EXPECT_EQ(Completion(body), expected) << body;
}

TEST(CompletionBody, SaysWhatIsWrongAndWhere) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{}", "prompt: it is missing"},
      {R"({"prompt": null})", "prompt: it is missing"},
      {R"({"prompt": ["a", "b"]})",
       "prompt: one prompt a request: send several at the same time instead"},
      {R"({"prompt": [[1], [2]]})",
       "prompt: one prompt a request: send several at the same time instead"},
      {R"({"prompt": [[]]})", "prompt[0]: it is an array, not a string or an array of token ids"},
      {R"({"prompt": {"a": 1}})", "prompt: it is an object, not a string or an array of token ids"},
      {R"({"prompt": [1, "a"]})", "prompt[1]: it is a string, not an integer"},
      {R"({"prompt": [2147483648]})",
       "prompt[0]: 2147483648 is not an integer from -2147483648 to 2147483647"},
      {R"({"prompt": "a", "best_of": 2})", "best_of: only 1: ask for n and choose"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix: no text is written in front of another here"},
      {R"({"prompt": "a", "logprobs": true})", "logprobs: it is a boolean, not an integer"},
      {R"({"prompt": "a", "messages": []})", "messages: there is no such field"},
  };
  for (const auto& [body, expected] : cases) {
    EXPECT_EQ(Completion(body), "invalid_request: " + expected) << body;
  }
}

TEST(TokenizeBody, TakesATextOrAConversation) {
  EXPECT_EQ(Short(*ReadTokenizeBody(R"({"model": "m", "prompt": "a"})")),
            "model: \"m\" text: \"a\"");
  EXPECT_EQ(Short(*ReadTokenizeBody(R"({"messages": [{"role": "user", "content": "a"}]})")),
            "chat { messages { role: \"user\" content: \"a\" } }");
  EXPECT_EQ(ReadTokenizeBody("{}").status().message(), "invalid_request: prompt: it is missing");
  EXPECT_EQ(ReadTokenizeBody(R"({"prompt": "a", "messages": []})").status().message(),
            "invalid_request: messages: either prompt or messages");
}

TEST(ReplyForm, IsReadBesideTheMessage) {
  const auto plain = ReadChatBody(With(""));
  ASSERT_TRUE(plain.ok());
  EXPECT_FALSE(plain->form.stream);
  const auto full = ReadChatBody(With(
      R"("stream": true, "stream_options": {"include_usage": true}, "return_token_ids": true)"));
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_TRUE(full->form.stream && full->form.include_usage && full->form.return_token_ids);
  EXPECT_TRUE(full->message.return_prompt_token_ids());
}

}  // namespace
}  // namespace baleen::router::openai
