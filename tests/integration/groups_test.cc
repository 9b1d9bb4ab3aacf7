// Groups of ranks as processes: any width gives the bits of one rank, under any placement, and a
// group that loses a rank ends its requests and comes back.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using Arguments = std::vector<std::string>;

const absl::Duration kCallMax = absl::Seconds(60) * kSlowness;
const absl::Duration kReturnMax = absl::Seconds(30) * kSlowness;
// The promise, from a rank's return to the group's first answer.
const absl::Duration kFormMax = absl::Seconds(5) * kSlowness;

v1::GenerateRequest SampledRequest(std::uint64_t seed) {
  v1::GenerateRequest request;
  const int prompt_tokens = static_cast<int>(3 + seed * 29 % 170);
  for (int i = 0; i < prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(static_cast<int>(3 + (i * 7 + seed) % 400));
  }
  request.mutable_sampling()->set_temperature(0.9f);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_stop()->set_max_tokens(40);
  request.mutable_stop()->set_ignore_eos(true);
  request.set_logprobs(2);
  return request;
}

// Everything that a reply says of its tokens; `chunks` counts the messages.
std::string TokensOf(const TestCluster& cluster, const v1::GenerateRequest& request,
                     std::atomic<int>* chunks = nullptr) {
  const cli::InferenceClient client(cluster.grpc());
  cli::Cancellation never;
  v1::GenerateChunk all;
  const absl::Status status =
      client.Generate(request, kCallMax, never, [&](const v1::GenerateChunk& chunk) {
        if (chunks != nullptr) ++*chunks;
        all.mutable_token_ids()->MergeFrom(chunk.token_ids());
        all.mutable_logprobs()->MergeFrom(chunk.logprobs());
      });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(all.token_ids_size(), static_cast<int>(request.stop().max_tokens()));
  return all.SerializeAsString();
}

std::vector<std::string> AllAtOnce(const TestCluster& cluster, std::uint64_t seeds) {
  std::vector<std::future<std::string>> replies;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    replies.push_back(std::async(
        std::launch::async, [&cluster, seed] { return TokensOf(cluster, SampledRequest(seed)); }));
  }
  std::vector<std::string> tokens;
  for (auto& reply : replies) tokens.push_back(reply.get());
  return tokens;
}

// One prefill group of two ranks, one decode group of four, redundant experts in both.
class Groups : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ = TestCluster::Start({"--prefill", "1x2", "--decode", "1x4", "--redundant-experts",
                                   "4", "--rebalance-seconds", "0"});
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override { ASSERT_NE(cluster_, nullptr); }

  static std::string LeaderOf(const std::string& group) {
    const json line = json::parse(cluster_->line());
    for (const auto& description : line["groups"]) {
      if (description["name"] == group) return description["leader"];
    }
    return "";
  }

  static std::unique_ptr<TestCluster> cluster_;
};

std::unique_ptr<TestCluster> Groups::cluster_;

TEST_F(Groups, AreNamedWithTheirLeaders) {
  const json line = json::parse(cluster_->line());
  EXPECT_EQ(line["workers"].size(), 6u);
  ASSERT_EQ(line["groups"].size(), 2u);
  EXPECT_EQ(line["groups"][0]["name"], "prefill-0");
  EXPECT_EQ(line["groups"][0]["ranks"], 2);
  EXPECT_EQ(line["groups"][1]["name"], "decode-0");
  EXPECT_EQ(line["groups"][1]["ranks"], 4);
  EXPECT_NE(LeaderOf("prefill-0"), LeaderOf("decode-0"));
}

TEST_F(Groups, AnswerArithmetic) {
  const ProgramResult result = RunProgram(
      "baleen", {"chat", "--router", cluster_->grpc(), "--once", "What is 347 + 589?", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json reply = json::parse(result.out);
  EXPECT_THAT(reply["content"].get<std::string>(), HasSubstr("936"));
  EXPECT_THAT(reply["timing"]["prefill_worker"].get<std::string>(), HasSubstr("prefill-0."));
  EXPECT_THAT(reply["timing"]["decode_worker"].get<std::string>(), HasSubstr("decode-0."));
}

// The contract: tokens and log-probabilities of a request are those of one rank, alone and among
// others, on whichever ranks they are computed.
TEST_F(Groups, GiveTheBitsOfOneRank) {
  const std::vector<std::string> expected = AllAtOnce(MixedCluster(), 12);
  EXPECT_EQ(AllAtOnce(*cluster_, 12), expected);
  EXPECT_EQ(TokensOf(*cluster_, SampledRequest(1)), expected[0]);
}

// A placement is adopted between steps: requests that run meanwhile do not notice.
TEST_F(Groups, ANewPlacementUnderLoadChangesNothing) {
  const std::vector<std::string> expected = AllAtOnce(MixedCluster(), 8);
  for (const char* group : {"prefill-0", "decode-0"}) {
    const Arguments apply = {"placement", "--group-leader", LeaderOf(group), "--json"};
    // Ranks report their counts every few seconds.
    ASSERT_TRUE(Eventually(kReturnMax, [&] {
      const ProgramResult result = RunProgram("baleen", apply);
      return result.exit_code == 0 && json::parse(result.out)["tokens"] > 0;
    })) << group;
    std::atomic<bool> loaded = true;
    std::future<void> load = std::async(std::launch::async, [&] {
      while (loaded) EXPECT_EQ(AllAtOnce(*cluster_, 8), expected);
    });
    Arguments now = apply;
    now.push_back("--apply");
    // The second one waits until the first is adopted.
    for (int time = 0; time < 2; ++time) {
      EXPECT_TRUE(Eventually(kReturnMax, [&] { return RunProgram("baleen", now).exit_code == 0; }))
          << group;
    }
    loaded = false;
    load.get();
    const ProgramResult result = RunProgram("baleen", apply);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json report = json::parse(result.out);
    EXPECT_GE(report["before"], 1.0);
    EXPECT_EQ(report["layers"].size(), 3u);
  }
  EXPECT_EQ(AllAtOnce(*cluster_, 8), expected);
}

// A placement of the model's 3 MoE layers of 16 experts, each expert somewhere, at random.
std::string RandomPlacement(int ranks, int redundant_experts, unsigned seed) {
  std::mt19937 random(seed);
  json layers = json::array();
  for (int layer = 0; layer < 3; ++layer) {
    std::vector<int> slots(16 + redundant_experts);
    for (std::size_t i = 0; i < slots.size(); ++i) {
      slots[i] = static_cast<int>(i < 16 ? i : random() % 16);
    }
    std::shuffle(slots.begin(), slots.end(), random);
    layers.push_back(slots);
  }
  return json{{"version", 1},
              {"experts", 16},
              {"ranks", ranks},
              {"redundant_experts", redundant_experts},
              {"layers", layers}}
      .dump();
}

struct Placed {
  int ranks;
  int redundant_experts;
};

class PlacedGroup : public ::testing::TestWithParam<Placed> {};

TEST_P(PlacedGroup, GivesTheBitsOfOneRank) {
  const auto [ranks, redundant_experts] = GetParam();
  const unsigned seed = 100u * ranks + redundant_experts;
  const std::string file =
      fmt::format("{}placement-{}-{}.json", ::testing::TempDir(), ::getpid(), seed);
  std::ofstream(file) << RandomPlacement(ranks, redundant_experts, seed);
  const auto cluster = TestCluster::Start({"--mixed", fmt::format("1x{}", ranks),
                                           "--redundant-experts", std::to_string(redundant_experts),
                                           "--placement", file, "--rebalance-seconds", "0"});
  ASSERT_NE(cluster, nullptr);
  EXPECT_EQ(AllAtOnce(*cluster, 6), AllAtOnce(MixedCluster(), 6)) << "seed " << seed;
  std::remove(file.c_str());
}

INSTANTIATE_TEST_SUITE_P(WidthsAndPlacements, PlacedGroup,
                         ::testing::Values(Placed{2, 0}, Placed{2, 6}, Placed{4, 0}, Placed{4, 4},
                                           Placed{8, 8}),
                         [](const auto& info) {
                           return fmt::format("{}Ranks{}Redundant", info.param.ranks,
                                              info.param.redundant_experts);
                         });

// Memory of a process's own, in kB, from /proc/PID/status: weights, but neither files nor buffers
// that ranks share.
std::int64_t OwnMemoryKb(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  std::string word;
  std::int64_t kb = -1;
  while (status >> word) {
    if (word == "RssAnon:") status >> kb;
  }
  return kb;
}

// A group that held every expert on every rank would pass all tests of its answers.
TEST(GroupMemory, ARankHoldsOnlyItsShareOfTheExperts) {
  if (kSlowness > 1) GTEST_SKIP() << "sanitizers keep memory of their own, many times the model's";
  // 3 MoE layers of 16 experts of 3 matrices of 256 x 128, packed as bf16.
  constexpr std::int64_t kExpertsKb = 3 * 16 * 3 * 256 * 128 * 2 / 1024;
  std::vector<std::int64_t> largest;
  for (const char* topology : {"1", "1x2", "1x4"}) {
    const auto cluster = TestCluster::Start({"--mixed", topology, "--step-tokens-max", "16",
                                             "--sequences-max", "2", "--kv-blocks", "64"});
    ASSERT_NE(cluster, nullptr);
    largest.push_back(0);
    for (const auto& [name, pid] : cluster->pids()) {
      if (name == "router") continue;
      const std::int64_t kb = OwnMemoryKb(pid);
      ASSERT_GT(kb, 0) << name;
      largest.back() = std::max(largest.back(), kb);
    }
  }
  // Expected: a half and three quarters of the experts, less what a rank of a group needs to talk.
  EXPECT_LT(largest[1], largest[0] - kExpertsKb / 4) << "1 and 2 ranks";
  EXPECT_LT(largest[2], largest[0] - kExpertsKb / 2) << "1 and 4 ranks";
}

// Ranks are told to stop at the same time, and none may leave the others in the middle of a step.
TEST(GroupStop, RunningRequestsAreFinishedFirst) {
  auto cluster =
      TestCluster::Start({"--prefill", "1x2", "--decode", "1x2", "--drain-seconds", "100"});
  ASSERT_NE(cluster, nullptr);
  v1::GenerateRequest request = SampledRequest(3);
  request.mutable_stop()->set_max_tokens(200);
  const std::string expected = TokensOf(*cluster, request);
  std::array<std::atomic<int>, 4> chunks{};
  std::vector<std::future<std::string>> replies;
  for (std::atomic<int>& counter : chunks) {
    replies.push_back(std::async(std::launch::async, [&cluster, &request, &counter] {
      return TokensOf(*cluster, request, &counter);
    }));
  }
  ASSERT_TRUE(Eventually(kReturnMax, [&] {
    return std::all_of(chunks.begin(), chunks.end(), [](const auto& n) { return n > 3; });
  }));
  ASSERT_EQ(::kill(cluster->pid(), SIGTERM), 0);
  for (auto& reply : replies) EXPECT_EQ(reply.get(), expected);
  EXPECT_EQ(cluster->Stop(SIGCONT), 0) << "its end; the signal has no effect";
}

}  // namespace
}  // namespace baleen::integration
