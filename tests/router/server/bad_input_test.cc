// Every bad input of a client: a typed status that names the field and the limit, and nothing lost
// for others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "router/cluster/grpc_support.h"
#include "tests/router/server/router_fixture.h"

namespace baleen::router {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr auto kNotFound = grpc::StatusCode::NOT_FOUND;

class BadInput : public RouterTest {
 protected:
  void SetUp() override {
    RouterTest::SetUp();
    Attach("mixed-0.0", {.reply = ReplyOf("a</think>b")});
  }

  void TearDown() override {
    EXPECT_TRUE(Chat(Question()).status.ok()) << "the next request is served";
    EXPECT_EQ(workers_[0]->state().starts.size(), 1u) << "nothing bad reached a worker";
  }
};

struct ChatCase {
  std::string name;
  std::function<void(v1::ChatRequest&)> change;
  grpc::StatusCode code;
  std::string message;  // the beginning
};

class BadChats : public BadInput, public ::testing::WithParamInterface<ChatCase> {};

TEST_P(BadChats, AreRefused) {
  v1::ChatRequest request = Question();
  GetParam().change(request);
  const grpc::Status status = Chat(request).status;
  EXPECT_EQ(status.error_code(), GetParam().code) << status.error_message();
  EXPECT_THAT(status.error_message(), StartsWith(GetParam().message));
}

constexpr auto SamplingWith = [](auto set) {
  return [set](v1::ChatRequest& r) { set(*r.mutable_sampling()); };
};

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const ChatCase kBadMessages[] = {
    ChatCase{"UnknownModel", [](auto& r) { r.set_model("gpt"); }, kNotFound,
             "model_not_found: no model is named 'gpt'"},
    ChatCase{"LongModelName", [](auto& r) { r.set_model(std::string(257, 'm')); }, kInvalid,
             "invalid_request: model has 257 bytes, limit 256"},
    ChatCase{"NoMessages", [](auto& r) { r.clear_messages(); }, kInvalid,
             "invalid_request: messages is empty"},
    ChatCase{"EmptyMessages", [](auto& r) { r.mutable_messages(0)->clear_content(); }, kInvalid,
             "invalid_request: messages have no content"},
    ChatCase{"TooManyMessages",
             [](auto& r) {
               for (int i = 0; i < 1024; ++i) r.add_messages()->set_role("user");
             },
             kInvalid, "invalid_request: messages has 1025 entries, limit 1024"},
    ChatCase{"AMillionEmptyMessages",
             [](auto& r) {
               for (int i = 0; i < 1'000'000; ++i) r.add_messages();
             },
             kInvalid, "invalid_request: messages has 1000001 entries, limit 1024"},
    ChatCase{"UnknownRole", [](auto& r) { r.mutable_messages(0)->set_role("robot"); }, kInvalid,
             "invalid_request: messages[0].role is not"},
    ChatCase{"NoRole", [](auto& r) { r.add_messages()->set_content("x"); }, kInvalid,
             "invalid_request: messages[1].role is not"},
    ChatCase{"TooMuchText",
             [](auto& r) { r.mutable_messages(0)->set_content(std::string((1u << 20) + 1, 'a')); },
             kInvalid, "invalid_request: messages have 1048577 bytes of content, limit 1048576"},
    ChatCase{"InvalidUtf8", [](auto& r) { r.mutable_messages(0)->set_content("caf\xe9"); },
             kInvalid,
             "invalid_request: the message is not a ChatRequest: it is malformed, or a text "
             "in it is not valid UTF-8"},
    ChatCase{"LongerThanTheContext",
             [](auto& r) {
               std::string text;
               for (int i = 0; i < 20'000; ++i) text += "+1";
               r.mutable_messages(0)->set_content(text);
             },
             kInvalid, "prompt_too_long: the prompt has "}};

INSTANTIATE_TEST_SUITE_P(Messages, BadChats, ::testing::ValuesIn(kBadMessages),
                         [](const auto& info) { return info.param.name; });

const ChatCase kBadNumbers[] = {
    ChatCase{"NegativeTemperature", SamplingWith([](auto& s) { s.set_temperature(-1.0f); }),
             kInvalid, "invalid_request: sampling.temperature -1 is neither 0 nor 0.01 to 2"},
    ChatCase{"NaNTemperature", SamplingWith([](auto& s) { s.set_temperature(kNaN); }), kInvalid,
             "invalid_request: sampling.temperature nan"},
    ChatCase{"InfiniteTemperature", SamplingWith([](auto& s) { s.set_temperature(kInfinity); }),
             kInvalid, "invalid_request: sampling.temperature inf"},
    ChatCase{"TinyTemperature", SamplingWith([](auto& s) { s.set_temperature(0.009f); }), kInvalid,
             "invalid_request: sampling.temperature 0.009"},
    ChatCase{"HotTemperature", SamplingWith([](auto& s) { s.set_temperature(2.01f); }), kInvalid,
             "invalid_request: sampling.temperature 2.01"},
    ChatCase{"ZeroTopP", SamplingWith([](auto& s) { s.set_top_p(0.0f); }), kInvalid,
             "invalid_request: sampling.top_p 0 is not above 0 and at most 1"},
    ChatCase{"LargeTopP", SamplingWith([](auto& s) { s.set_top_p(1.001f); }), kInvalid,
             "invalid_request: sampling.top_p 1.001"},
    ChatCase{"NaNTopP", SamplingWith([](auto& s) { s.set_top_p(kNaN); }), kInvalid,
             "invalid_request: sampling.top_p nan"},
    ChatCase{"LargeTopK", SamplingWith([](auto& s) { s.set_top_k(513); }), kInvalid,
             "invalid_request: sampling.top_k 513 is above the vocabulary size 512"},
    ChatCase{"NoTokens", [](auto& r) { r.mutable_stop()->set_max_tokens(0); }, kInvalid,
             "invalid_request: stop.max_tokens 0 is not 1 to 32768"},
    ChatCase{"TooManyTokens", [](auto& r) { r.mutable_stop()->set_max_tokens(32'769); }, kInvalid,
             "invalid_request: stop.max_tokens 32769 is not 1 to 32768"},
    ChatCase{"MoreTokensThanTheContext", [](auto& r) { r.mutable_stop()->set_max_tokens(4096); },
             kInvalid, "prompt_too_long: prompt of "}};

INSTANTIATE_TEST_SUITE_P(Numbers, BadChats, ::testing::ValuesIn(kBadNumbers),
                         [](const auto& info) { return info.param.name; });

struct GenerateCase {
  std::string name;
  std::function<void(v1::GenerateRequest&)> change;
  grpc::StatusCode code;
  std::string message;  // the beginning
};

class BadGenerates : public BadInput, public ::testing::WithParamInterface<GenerateCase> {};

TEST_P(BadGenerates, AreRefused) {
  v1::GenerateRequest request;
  GetParam().change(request);
  const grpc::Status status = Generate(request).status;
  EXPECT_EQ(status.error_code(), GetParam().code) << status.error_message();
  EXPECT_THAT(status.error_message(), StartsWith(GetParam().message));
}

constexpr auto TokenIdList = [](std::vector<std::int32_t> ids) {
  return [ids = std::move(ids)](v1::GenerateRequest& r) {
    r.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  };
};

const GenerateCase kBadPrompts[] = {
    GenerateCase{"NoPrompt", [](auto&) {}, kInvalid,
                 "invalid_request: prompt is missing: set text or token_ids"},
    GenerateCase{"EmptyText", [](auto& r) { r.set_text(""); }, kInvalid,
                 "invalid_request: text is empty"},
    GenerateCase{"LongText", [](auto& r) { r.set_text(std::string((1u << 20) + 1, 'a')); },
                 kInvalid, "invalid_request: text has 1048577 bytes, limit 1048576"},
    GenerateCase{"InvalidUtf8", [](auto& r) { r.set_text("\xff"); }, kInvalid,
                 "invalid_request: the message is not a GenerateRequest"},
    GenerateCase{"NoTokenIds", [](auto& r) { r.mutable_token_ids(); }, kInvalid,
                 "invalid_request: token_ids is empty"},
    GenerateCase{"TokenIdBeyondTheVocabulary", TokenIdList({0, 1, 512}), kInvalid,
                 "invalid_request: token_ids[2] is 512, not 0 to 511"},
    GenerateCase{"NegativeTokenId", TokenIdList({-1}), kInvalid,
                 "invalid_request: token_ids[0] is -1, not 0 to 511"},
    GenerateCase{"AsLongAsTheContext", TokenIdList(std::vector<std::int32_t>(4096, 5)), kInvalid,
                 "prompt_too_long: the prompt has 4096 tokens, the context of model 'nano' is "
                 "4096"},
    GenerateCase{"MoreTokenIdsThanAnyContext", TokenIdList(std::vector<std::int32_t>(163'841, 5)),
                 kInvalid, "prompt_too_long: token_ids has 163841 ids, limit 163840"},
    GenerateCase{"ManyLogprobs",
                 [](auto& r) {
                   r.set_text("x");
                   r.set_logprobs(21);
                 },
                 kInvalid, "invalid_request: logprobs 21 is not 0 to 20"},
    GenerateCase{"UnknownModel",
                 [](auto& r) {
                   r.set_text("x");
                   r.set_model("x");
                 },
                 kNotFound, "model_not_found: "}};

INSTANTIATE_TEST_SUITE_P(Table, BadGenerates, ::testing::ValuesIn(kBadPrompts),
                         [](const auto& info) { return info.param.name; });

TEST_F(BadInput, Tokenize) {
  const auto tokenize = [this](const v1::TokenizeRequest& request) {
    v1::TokenizeResponse response;
    return stub_->Tokenize(Context().get(), request, &response);
  };
  v1::TokenizeRequest request;
  EXPECT_THAT(tokenize(request).error_message(), HasSubstr("input is missing"));
  request.set_text("");
  EXPECT_THAT(tokenize(request).error_message(), HasSubstr("text is empty"));
  request.set_text("\xc0\x80");
  EXPECT_EQ(tokenize(request).error_code(), kInvalid);
  request.mutable_chat();
  EXPECT_THAT(tokenize(request).error_message(), HasSubstr("messages is empty"));
  for (int i = 0; i < 1025; ++i) request.mutable_chat()->add_messages();
  EXPECT_THAT(tokenize(request).error_message(), HasSubstr("messages has 1025 entries"));
  request.set_text("x");
  request.set_model("other");
  EXPECT_EQ(tokenize(request).error_code(), kNotFound);
}

// The parser wrote a line of its own to stderr for every such message: a client could fill a disk.
TEST_F(BadInput, InvalidUtf8WritesNoLine) {
  QuietGrpcLog();
  testing::internal::CaptureStderr();
  const grpc::Status status = Chat(Question("caf\xe9")).status;
  EXPECT_EQ(status.error_code(), kInvalid);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(BadInput, AMessageThatIsTooLargeIsRefusedByItsSize) {
  v1::GenerateRequest request;
  request.set_text(std::string(5u << 20, 'a'));
  const grpc::Status status = Generate(request).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(BadInput, CompressedMessagesAreRefused) {
  const auto context = Context();
  context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
  const ChatResult result = Chat(Question(std::string(1000, 'a')), *context);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNIMPLEMENTED)
      << result.status.error_message();
}

TEST_F(RouterTest, GreedyMayBeWrittenInThreeWays) {
  Attach("mixed-0.0", {.reply = ReplyOf("a</think>b")});
  for (int i = 0; i < 3; ++i) {
    v1::ChatRequest request = Question();
    if (i == 1) request.mutable_sampling()->set_temperature(0.0f);
    if (i == 2) request.mutable_sampling()->set_temperature(-0.0f);
    EXPECT_TRUE(Chat(request).status.ok());
    const float sent = workers_[0]->state().starts.back().sampling().temperature();
    EXPECT_EQ(sent, 0.0f);
    EXPECT_FALSE(std::signbit(sent));
  }
}

}  // namespace
}  // namespace baleen::router
