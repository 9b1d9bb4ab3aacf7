// Bad input: one line that names the thing and the limit, a non-zero exit code, and nothing lost
// for others.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using Arguments = std::vector<std::string>;

// The error of a command: all of stderr is one line.
void ExpectOneLineError(const ProgramResult& result, const std::string& start,
                        const std::string& names) {
  EXPECT_EQ(result.exit_code, 1) << result.out;
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, StartsWith("error: " + start));
  EXPECT_THAT(result.err, HasSubstr(names));
  EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
}

struct BadRequest {
  const char* name;
  Arguments arguments;
  const char* code;
  const char* names;
};

std::string Repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

class BadGenerate : public ::testing::TestWithParam<BadRequest> {};

// The same request fails in the same way by a cluster and in one process.
TEST_P(BadGenerate, IsRefusedByName) {
  const BadRequest& bad = GetParam();
  for (const Arguments& where :
       {Arguments{"--router", MixedCluster().grpc()}, Arguments{"--model", kModel}}) {
    Arguments all = {"generate"};
    all.insert(all.end(), where.begin(), where.end());
    all.insert(all.end(), bad.arguments.begin(), bad.arguments.end());
    ExpectOneLineError(RunProgram("baleen", all), std::string(bad.code) + ": ", bad.names);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Requests, BadGenerate,
    ::testing::Values(
        BadRequest{"EmptyPrompt", {"--prompt", ""}, "INVALID_ARGUMENT", "empty"},
        BadRequest{"NoTokens", {"--token-ids", ""}, "INVALID_ARGUMENT", "empty"},
        BadRequest{
            "TooLong", {"--token-ids", "5" + Repeated(",5", 4999)}, "INVALID_ARGUMENT", "4096"},
        BadRequest{"NoRoomForTheReply",
                   {"--token-ids", "5" + Repeated(",5", 3999), "--max-tokens", "97"},
                   "INVALID_ARGUMENT",
                   "4096"},
        BadRequest{"InvalidUtf8", {"--prompt", "ab\xff"}, "INVALID_ARGUMENT", "byte 2"},
        BadRequest{"UnknownTokenId", {"--token-ids", "5,512"}, "INVALID_ARGUMENT", "512"},
        BadRequest{"NegativeTokenId", {"--token-ids", "-1"}, "INVALID_ARGUMENT", "-1"},
        BadRequest{"NanTemperature",
                   {"--token-ids", "5", "--temperature", "nan"},
                   "INVALID_ARGUMENT",
                   "temperature nan"},
        BadRequest{"NegativeTemperature",
                   {"--token-ids", "5", "--temperature", "-1"},
                   "INVALID_ARGUMENT",
                   "temperature -1"},
        BadRequest{"HotTemperature",
                   {"--token-ids", "5", "--temperature", "2.5"},
                   "INVALID_ARGUMENT",
                   "temperature 2.5"},
        BadRequest{"ZeroTopP", {"--token-ids", "5", "--top-p", "0"}, "INVALID_ARGUMENT", "top_p 0"},
        BadRequest{"TopKBeyondTheVocabulary",
                   {"--token-ids", "5", "--top-k", "513"},
                   "INVALID_ARGUMENT",
                   "512"}),
    [](const auto& info) { return info.param.name; });

TEST(BadRouterRequest, UnknownModel) {
  ExpectOneLineError(RunProgram("baleen", {"generate", "--router", MixedCluster().grpc(),
                                           "--model-name", "gpt", "--token-ids", "5"}),
                     "NOT_FOUND: ", "gpt");
}

TEST(BadRouterRequest, EmptyQuestion) {
  ExpectOneLineError(
      RunProgram("baleen", {"chat", "--router", MixedCluster().grpc(), "--once", ""}),
      "INVALID_ARGUMENT: ", "no content");
}

TEST(BadRouterRequest, NobodyListens) {
  const ProgramResult result =
      RunProgram("baleen", {"chat", "--router", "127.0.0.1:1", "--once", "hello"});
  ExpectOneLineError(result, "UNAVAILABLE: ", "127.0.0.1:1");
  EXPECT_LT(result.took, absl::Seconds(10) * kSlowness);
}

TEST(BadRouterRequest, OthersAreStillServed) {
  EXPECT_EQ(RunProgram("baleen", {"generate", "--router", MixedCluster().grpc(), "--token-ids", "5",
                                  "--max-tokens", "2"})
                .exit_code,
            0);
}

// A copy of the nano model that a test can damage.
class BadModel : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "model-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    for (const auto& entry : std::filesystem::directory_iterator(kModel)) {
      if (entry.is_regular_file()) {
        std::filesystem::copy_file(entry.path(), directory_ / entry.path().filename());
      }
    }
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // `baleen up` fails at once with the error of the process that can not start.
  void ExpectUpFails(const std::string& names) {
    const ProgramResult result =
        RunProgram("baleen", {"up", "--model", directory_, "--mixed", "1", "--log-level", "error"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    const std::size_t at = result.err.find("error: ");
    ASSERT_NE(at, std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("error: ", at + 1), std::string::npos) << "said once\n" << result.err;
    EXPECT_EQ(result.err.find('\n', at), result.err.size() - 1) << "and last\n" << result.err;
    EXPECT_THAT(result.err.substr(at), HasSubstr(names));
    EXPECT_LT(result.took, absl::Seconds(20) * kSlowness);
  }

  void ExpectGenerateFails(const std::string& names) {
    const ProgramResult result =
        RunProgram("baleen", {"generate", "--model", directory_, "--token-ids", "5"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, StartsWith("error: "));
    EXPECT_THAT(result.err, HasSubstr(names));
  }

  std::filesystem::path directory_;
};

TEST_F(BadModel, Missing) {
  std::filesystem::remove_all(directory_);
  ExpectUpFails(directory_);
  ExpectGenerateFails(directory_);
}

TEST_F(BadModel, TruncatedWeights) {
  std::filesystem::resize_file(directory_ / "model.safetensors", 1'000'000);
  ExpectUpFails("model.safetensors");
  ExpectGenerateFails("model.safetensors");
}

TEST_F(BadModel, ConfigAndWeightsDisagree) {
  std::ifstream in(directory_ / "config.json");
  std::string config((std::istreambuf_iterator<char>(in)), {});
  const std::string field = "\"vocab_size\": 512";
  const std::size_t at = config.find(field);
  ASSERT_NE(at, std::string::npos);
  std::ofstream(directory_ / "config.json")
      << config.replace(at, field.size(), "\"vocab_size\": 520");
  ExpectUpFails("520");
  ExpectGenerateFails("520");
}

TEST_F(BadModel, DamagedTokenizer) {
  std::filesystem::resize_file(directory_ / "tokenizer.json", 1000);
  ExpectUpFails("tokenizer.json");
}

// /etc/passwd "did not exist".
TEST_F(BadModel, NotADirectory) {
  directory_ = directory_ / "config.json";
  ExpectUpFails("config.json' is not a directory");
  ExpectGenerateFails("config.json' is not a directory");
  directory_ = directory_.parent_path();
}

TEST_F(BadModel, TokenIdsNeedNoTokenizer) {
  std::filesystem::remove(directory_ / "tokenizer.json");
  std::filesystem::remove(directory_ / "tokenizer_config.json");
  const ProgramResult with_ids = RunProgram(
      "baleen",
      {"generate", "--model", directory_, "--token-ids", "0,5,6", "--max-tokens", "2", "--json"});
  EXPECT_EQ(with_ids.exit_code, 0) << with_ids.err;
  EXPECT_THAT(with_ids.out, HasSubstr("\"text\":\"\""));
  const ProgramResult with_text =
      RunProgram("baleen", {"generate", "--model", directory_, "--prompt", "hello"});
  ExpectOneLineError(with_text, "INVALID_ARGUMENT: ", "tokenizer.json");

  // A cluster too: the same bits for ids, the same error for text.
  const auto cluster = TestCluster::Start({"--prefill", "1", "--decode", "1"}, directory_);
  ASSERT_NE(cluster, nullptr);
  const auto ask = [&](Arguments where) {
    where.insert(where.begin(), "generate");
    where.insert(where.end(),
                 {"--token-ids", "0,5,6", "--max-tokens", "3", "--logprobs", "5", "--json"});
    const ProgramResult result = RunProgram("baleen", where);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(result.out);
  };
  const auto routed = ask({"--router", cluster->grpc()});
  const auto local = ask({"--model", directory_});
  EXPECT_EQ(routed["token_ids"], local["token_ids"]);
  EXPECT_EQ(routed["logprobs"], local["logprobs"]);
  EXPECT_EQ(routed["text"], "");
  ExpectOneLineError(
      RunProgram("baleen", {"generate", "--router", cluster->grpc(), "--prompt", "hello"}),
      "INVALID_ARGUMENT: ", "tokenizer.json");
  ExpectOneLineError(RunProgram("baleen", {"chat", "--router", cluster->grpc(), "--once", "hello"}),
                     "INVALID_ARGUMENT: ", "tokenizer.json");
}

TEST(BadUp, PortInUse) {
  const std::string taken = MixedCluster().grpc();
  const ProgramResult result = RunProgram("baleen", {"up", "--model", kModel, "--mixed", "1",
                                                     "--listen", taken, "--log-level", "error"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("error: router: "));
  EXPECT_THAT(result.err, HasSubstr(taken));
}

TEST(BadUp, WorkersThatCanNotAnswer) {
  const ProgramResult result =
      RunProgram("baleen", {"up", "--model", kModel, "--prefill", "1", "--decode", "0"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("at least one prefill and one decode"));
}

}  // namespace
}  // namespace baleen::integration
