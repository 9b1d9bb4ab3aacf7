// Replies from chunks, and the JSON that scripts rely on, as golden text.
#include "tools/cli/client/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

namespace baleen::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::Usage SomeUsage() {
  v1::Usage usage;
  usage.set_prompt_tokens(3);
  usage.set_completion_tokens(11);
  usage.set_reasoning_tokens(7);
  usage.set_cached_tokens(2);
  usage.set_seed(std::numeric_limits<std::uint64_t>::max());
  return usage;
}

v1::GenerateChunk Tokens(std::uint32_t first, std::initializer_list<int> ids) {
  v1::GenerateChunk chunk;
  chunk.set_first_token_index(first);
  for (const int id : ids) chunk.add_token_ids(id);
  return chunk;
}

TEST(Render, GenerateJsonIsStable) {
  GenerateResult result{.token_ids = {7, 8}, .text = "a\"\n\xe2\x82\xac"};
  v1::TokenLogprob& logprob = result.logprobs.emplace_back();
  logprob.set_token_id(7);
  logprob.set_logprob(-0.5f);
  for (const auto& [id, value] : {std::pair(7, -0.5f), std::pair(9, -1.25f)}) {
    v1::TopLogprob& top = *logprob.add_top();
    top.set_token_id(id);
    top.set_logprob(value);
  }
  result.finish_reason = v1::FINISH_REASON_LENGTH;
  result.usage = SomeUsage();
  EXPECT_EQ(ToJson(result),
            "{\"token_ids\":[7,8],\"text\":\"a\\\"\\n\xe2\x82\xac\",\"logprobs\":[{\"token_id\":7,"
            "\"logprob\":-0.5,\"top\":[[7,-0.5],[9,-1.25]]}],\"finish_reason\":\"length\","
            "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":11,\"reasoning_tokens\":7,"
            "\"cached_tokens\":2,\"seed\":18446744073709551615}}");
}

TEST(Render, GenerateJsonHasEveryKeyEvenWhenEmpty) {
  EXPECT_EQ(ToJson(GenerateResult{}),
            "{\"token_ids\":[],\"text\":\"\",\"logprobs\":[],\"finish_reason\":\"\",\"usage\":{"
            "\"prompt_tokens\":0,\"completion_tokens\":0,\"reasoning_tokens\":0,"
            "\"cached_tokens\":0,\"seed\":0}}");
}

TEST(Render, ChatJsonIsStable) {
  ChatResult result{.reasoning = "because", .content = "42"};
  result.finish_reason = v1::FINISH_REASON_STOP;
  result.usage = SomeUsage();
  result.timing.set_prefill_worker("prefill-0.0");
  result.timing.set_decode_worker("decode-0.0");
  result.timing.set_time_to_first_token_us(5);
  result.timing.set_total_us(6);
  result.timing.set_kv_transfer_bytes(7);
  EXPECT_EQ(ToJson(result),
            "{\"reasoning\":\"because\",\"content\":\"42\",\"finish_reason\":\"stop\",\"usage\":{"
            "\"prompt_tokens\":3,\"completion_tokens\":11,\"reasoning_tokens\":7,"
            "\"cached_tokens\":2,\"seed\":18446744073709551615},\"timing\":{\"prefill_worker\":"
            "\"prefill-0.0\",\"decode_worker\":\"decode-0.0\",\"time_to_first_token_us\":5,"
            "\"total_us\":6,\"kv_transfer_bytes\":7}}");
}

// The log-probability that a script reads back from the JSON.
float ReadBack(float value) {
  GenerateResult result;
  result.logprobs.emplace_back().set_logprob(value);
  const auto json = nlohmann::json::parse(ToJson(result));
  return static_cast<float>(json["logprobs"][0]["logprob"].get<double>());
}

TEST(Render, LogprobsSurviveToTheBit) {
  std::mt19937 random(7);
  for (int i = 0; i < 200'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(ReadBack(value)), std::bit_cast<std::uint32_t>(value))
        << value;
  }
  for (const float value : {0.0f, -0.0f, -0.1f, -1e-45f, std::numeric_limits<float>::min(),
                            std::numeric_limits<float>::lowest()}) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(ReadBack(value)), std::bit_cast<std::uint32_t>(value));
  }
}

TEST(Render, WhatJsonHasNoNumberForIsNull) {
  GenerateResult result;
  result.logprobs.emplace_back().set_logprob(-std::numeric_limits<float>::infinity());
  EXPECT_THAT(ToJson(result), HasSubstr("\"logprob\":null"));
}

TEST(Render, TextThatIsNoUtf8StillGivesJson) {
  const GenerateResult result{.text =
                                  "a\xff"
                                  "b"};
  EXPECT_EQ(nlohmann::json::parse(ToJson(result))["text"],
            "a\xef\xbf\xbd"
            "b");
}

TEST(Append, PutsAReplyTogether) {
  GenerateResult result;
  v1::GenerateChunk first = Tokens(0, {5});
  first.set_delta("he");
  first.add_logprobs()->set_token_id(5);
  v1::GenerateChunk second = Tokens(1, {6, 7});
  second.set_delta("llo");
  v1::GenerateChunk last;
  last.set_delta("!");
  last.set_finish_reason(v1::FINISH_REASON_STOP);
  *last.mutable_usage() = SomeUsage();
  for (const auto& chunk : {first, second, last}) EXPECT_TRUE(Append(chunk, result).ok());
  EXPECT_THAT(result.token_ids, ElementsAre(5, 6, 7));
  EXPECT_EQ(result.text, "hello!");
  EXPECT_EQ(result.logprobs.size(), 1u);
  EXPECT_EQ(NameOf(result.finish_reason), "stop");
  EXPECT_EQ(result.usage.completion_tokens(), 11u);
  EXPECT_TRUE(CheckEnded(result.finish_reason).ok());
}

TEST(Append, NoticesALostADoubledAndALateToken) {
  GenerateResult result;
  ASSERT_TRUE(Append(Tokens(0, {5, 6}), result).ok());
  EXPECT_EQ(Append(Tokens(3, {7}), result).message(),
            "the router sends token 3 where token 2 is due");
  EXPECT_EQ(Append(Tokens(1, {6}), result).code(), absl::StatusCode::kInternal);
  result.finish_reason = v1::FINISH_REASON_LENGTH;
  EXPECT_EQ(Append(Tokens(2, {7}), result).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(result.token_ids, ElementsAre(5, 6));
}

TEST(Append, AReplyWithoutEndIsAnError) {
  EXPECT_EQ(CheckEnded(v1::FINISH_REASON_UNSPECIFIED).code(), absl::StatusCode::kInternal);
}

TEST(TokensPerSecond, CountsFromTheFirstTokenOn) {
  v1::Usage usage;
  v1::Timing timing;
  usage.set_completion_tokens(11);
  timing.set_time_to_first_token_us(500'000);
  timing.set_total_us(1'000'000);
  EXPECT_DOUBLE_EQ(TokensPerSecond(usage, timing), 20.0);
  usage.set_completion_tokens(1);
  EXPECT_EQ(TokensPerSecond(usage, timing), 0.0);
  usage.set_completion_tokens(2);
  timing.set_total_us(500'000);
  EXPECT_EQ(TokensPerSecond(usage, timing), 0.0);
}

}  // namespace
}  // namespace baleen::cli
