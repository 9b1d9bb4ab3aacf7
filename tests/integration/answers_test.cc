// A cluster answers, and its tokens do not depend on how it is laid out.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Arguments = std::vector<std::string>;

// The reply of `baleen generate --json`; null JSON after a failure.
json Generate(const Arguments& where, const Arguments& what) {
  Arguments all = {"generate", "--json"};
  all.insert(all.end(), where.begin(), where.end());
  all.insert(all.end(), what.begin(), what.end());
  const ProgramResult result = RunProgram("baleen", all);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.exit_code == 0 ? json::parse(result.out) : json();
}

Arguments Split() { return {"--router", SplitCluster().grpc()}; }
Arguments Mixed() { return {"--router", MixedCluster().grpc()}; }
Arguments InProcess() { return {"--model", kModel}; }

// A prompt over several blocks of 64 tokens, of ids that text would not give.
std::string LongPrompt() {
  std::vector<int> ids(150);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int>(3 + (i * 37) % 500);
  return fmt::format("{}", fmt::join(ids, ","));
}

TEST(Up, PrintsOneLineOfJson) {
  const json line = json::parse(SplitCluster().line());
  EXPECT_THAT(line["grpc"].get<std::string>(), HasSubstr("127.0.0.1:"));
  EXPECT_EQ(line["metrics"].size(), 3u);
  EXPECT_EQ(line["metrics"][0], line["router"]["metrics"]);
  ASSERT_EQ(line["workers"].size(), 2u);
  EXPECT_EQ(line["workers"][0]["name"], "prefill-0.0");
  EXPECT_EQ(line["workers"][0]["role"], "prefill");
  EXPECT_EQ(line["workers"][1]["name"], "decode-0.0");
  for (const auto& worker : line["workers"]) EXPECT_TRUE(IsRunning(worker["pid"]));
  EXPECT_TRUE(IsRunning(line["router"]["pid"]));
}

TEST(Chat, AnswersWithReasoningUsageAndTiming) {
  const ProgramResult result = RunProgram("baleen", {"chat", "--router", SplitCluster().grpc(),
                                                     "--once", "What is 347 + 589?", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const json reply = json::parse(result.out);
  EXPECT_THAT(reply["reasoning"].get<std::string>(), HasSubstr("347+589"));
  EXPECT_THAT(reply["content"].get<std::string>(), HasSubstr("936"));
  EXPECT_EQ(reply["finish_reason"], "stop");
  const json& usage = reply["usage"];
  EXPECT_GT(usage["prompt_tokens"], 5);
  EXPECT_GT(usage["reasoning_tokens"], 10);
  EXPECT_GT(usage["completion_tokens"], usage["reasoning_tokens"]);
  const json& timing = reply["timing"];
  EXPECT_EQ(timing["prefill_worker"], "prefill-0.0");
  EXPECT_EQ(timing["decode_worker"], "decode-0.0");
  EXPECT_GT(timing["kv_transfer_bytes"], 0);
  EXPECT_GT(timing["time_to_first_token_us"], 0);
  EXPECT_GE(timing["total_us"], timing["time_to_first_token_us"]);
}

TEST(Chat, ShowsTheAnswerOnStdoutAndTheReasoningOnStderr) {
  const ProgramResult result = RunProgram(
      "baleen", {"chat", "--router", MixedCluster().grpc(), "--once", "What is 347 + 589?"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("936"));
  EXPECT_EQ(result.out.find("carry"), std::string::npos) << result.out;
  EXPECT_THAT(result.err, HasSubstr("carry"));
}

TEST(Chat, TakesQuestionsFromAPipe) {
  const ProgramResult result = RunProgram(
      "/bin/sh", {"-c", fmt::format("printf 'What is 2 + 3?\\n\\n/new\\nWhat is 12 + 30?\\n' | {} "
                                    "chat --router {}",
                                    BinaryPath("baleen"), SplitCluster().grpc())});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("5"));
  EXPECT_THAT(result.out, HasSubstr("42"));
}

TEST(Generate, HasTheDocumentedKeys) {
  const json reply =
      Generate(Split(), {"--token-ids", "0,5,6", "--max-tokens", "1", "--logprobs", "20"});
  EXPECT_EQ(reply["token_ids"].size(), 1u);
  ASSERT_EQ(reply["logprobs"].size(), 1u);
  const json& logprob = reply["logprobs"][0];
  EXPECT_EQ(logprob["token_id"], reply["token_ids"][0]);
  ASSERT_EQ(logprob["top"].size(), 20u);
  EXPECT_EQ(logprob["top"][0][0], reply["token_ids"][0]) << "greedy: the most probable";
  EXPECT_EQ(logprob["top"][0][1], logprob["logprob"]);
  for (std::size_t i = 1; i < 20; ++i) {
    EXPECT_LE(logprob["top"][i][1].get<double>(), logprob["top"][i - 1][1].get<double>());
  }
  EXPECT_EQ(reply["finish_reason"], "length");
  EXPECT_EQ(reply["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 1);
}

// A prompt of several steps has its transfer under way when the reply ends with the first token.
// The decode rank's word of the withdrawn transfer failed nine of ten such requests.
TEST(Generate, AReplyOfOneTokenAfterALongPromptNeverFails) {
  const cli::InferenceClient client(SplitCluster().grpc());
  v1::GenerateRequest request;
  for (int i = 0; i < 600; ++i) request.mutable_token_ids()->add_ids(i * 7 % 500);
  request.mutable_stop()->set_max_tokens(1);
  for (int i = 0; i < 4; ++i) {
    cli::Cancellation never;
    int tokens = 0;
    const absl::Status status =
        client.Generate(request, absl::Seconds(60) * kSlowness, never,
                        [&](const v1::GenerateChunk& chunk) { tokens += chunk.token_ids_size(); });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(tokens, 1);
  }
  for (const char* worker : {"prefill-0.0", "decode-0.0"}) {
    EXPECT_EQ(SplitCluster().Metric(worker, "baleen_worker_kv_transfer_failures_total"), 0.0)
        << worker << ": nothing failed";
  }
}

struct Request {
  const char* name;
  Arguments arguments;
};

class Generation : public ::testing::TestWithParam<Request> {};

// The contract "same bits": split over two workers with large prefill chunks, on one worker with
// chunks of 7 tokens, and in one process, every token, log-probability and count is the same.
TEST_P(Generation, IsTheSameSplitMixedAndInProcess) {
  const Arguments& arguments = GetParam().arguments;
  const json in_process = Generate(InProcess(), arguments);
  ASSERT_GT(in_process["token_ids"].size(), 0u);
  EXPECT_EQ(Generate(Split(), arguments).dump(), in_process.dump());
  EXPECT_EQ(Generate(Mixed(), arguments).dump(), in_process.dump());
}

INSTANTIATE_TEST_SUITE_P(
    Requests, Generation,
    ::testing::Values(
        Request{"Greedy",
                {"--token-ids", "0,5,6", "--max-tokens", "20", "--logprobs", "20", "--seed", "1"}},
        Request{"LongPrompt",
                {"--token-ids", LongPrompt(), "--max-tokens", "80", "--logprobs", "3", "--seed",
                 "1", "--ignore-eos"}},
        Request{"Sampled",
                {"--token-ids", "0,5,6", "--max-tokens", "60", "--logprobs", "5", "--temperature",
                 "0.8", "--top-k", "40", "--top-p", "0.95", "--seed", "12345678901234567890",
                 "--ignore-eos"}},
        Request{"Text",
                {"--prompt", "What is 12 + 30? Größe, 大", "--max-tokens", "30", "--logprobs", "0",
                 "--temperature", "1", "--seed", "7"}},
        Request{"BlockBoundary",
                {"--token-ids", LongPrompt().substr(0, LongPrompt().find(",", 225)), "--max-tokens",
                 "70", "--logprobs", "1", "--seed", "1", "--ignore-eos"}},
        Request{"NoLogprobs", {"--token-ids", "0,5,6", "--max-tokens", "5", "--seed", "3"}}),
    [](const auto& info) { return info.param.name; });

v1::GenerateRequest SampledRequest(std::uint64_t seed) {
  v1::GenerateRequest request;
  for (int i = 0; i < 20; ++i) request.mutable_token_ids()->add_ids(3 + (i * 7 + seed) % 400);
  request.mutable_sampling()->set_temperature(0.9f);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_stop()->set_max_tokens(100);
  request.mutable_stop()->set_ignore_eos(true);
  request.set_logprobs(2);
  return request;
}

// Everything that a reply says of its tokens.
std::string TokensOf(const TestCluster& cluster, const v1::GenerateRequest& request) {
  const cli::InferenceClient client(cluster.grpc());
  cli::Cancellation never;
  v1::GenerateChunk all;
  const absl::Status status = client.Generate(
      request, absl::Seconds(60) * kSlowness, never, [&](const v1::GenerateChunk& chunk) {
        all.mutable_token_ids()->MergeFrom(chunk.token_ids());
        all.mutable_logprobs()->MergeFrom(chunk.logprobs());
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(all.token_ids_size(), 100);
  return all.SerializeAsString();
}

TEST(Batching, ARequestAmongEightOthersGivesTheSameTokens) {
  for (TestCluster* cluster : {&SplitCluster(), &MixedCluster()}) {
    const std::string alone = TokensOf(*cluster, SampledRequest(1));
    std::vector<std::future<std::string>> others;
    for (std::uint64_t seed = 2; seed < 10; ++seed) {
      others.push_back(std::async(std::launch::async, [cluster, seed] {
        return TokensOf(*cluster, SampledRequest(seed));
      }));
    }
    EXPECT_EQ(TokensOf(*cluster, SampledRequest(1)), alone);
    for (auto& other : others) EXPECT_NE(other.get(), alone);
  }
}

TEST(Demo, AsksShowsFiguresAndEnds) {
  const ProgramResult result = RunProgram("baleen", {"demo", "--model", kModel});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* words : {"What is 347 + 589?", "carry", "936", "time to first token", "tokens/s",
                            "prefill-0.0", "decode-0.0", "KV moved", "gRPC", "metrics of router"}) {
    EXPECT_THAT(result.out, HasSubstr(words));
  }
  EXPECT_EQ(result.err, "");
}

TEST(Demo, AWrongAnswerIsAnError) {
  const ProgramResult result = RunProgram(
      "baleen",
      {"demo", "--model", kModel, "--mixed", "1", "--question", "What is 2 + 3?", "--expect", "6"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("the answer is wrong: it does not contain 6"));
}

}  // namespace
}  // namespace baleen::integration
