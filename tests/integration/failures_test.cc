// Processes die, clients leave: what is promised then.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using ::testing::HasSubstr;

const absl::Duration kRecoverMax = absl::Seconds(30) * kSlowness;
const absl::Duration kCallMax = absl::Seconds(60) * kSlowness;
// The promise is one second; sanitizers get more.
const absl::Duration kFreeMax = absl::Seconds(1) * kSlowness;

// A reply that takes long enough to be interrupted.
v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  for (const int id : {0, 5, 6}) request.mutable_token_ids()->add_ids(id);
  request.mutable_stop()->set_max_tokens(4000);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

// Generates, and calls `meanwhile` once after some tokens have come.
absl::Status GenerateAnd(const TestCluster& cluster,
                         const std::function<void(cli::Cancellation&)>& meanwhile) {
  const cli::InferenceClient client(cluster.grpc());
  cli::Cancellation cancellation;
  int chunks = 0;
  return client.Generate(LongRequest(), kCallMax, cancellation, [&](const v1::GenerateChunk&) {
    if (++chunks == 5) meanwhile(cancellation);
  });
}

// The same, from a process of its own.
absl::StatusOr<cli::ChildProcess> LaunchLongClient(const TestCluster& cluster) {
  return cli::ChildProcess::Launch(
      {.executable = BinaryPath("baleen"),
       .arguments = {"generate", "--router", cluster.grpc(), "--token-ids", "0,5,6", "--max-tokens",
                     "4000", "--ignore-eos"}});
}

bool Answers(const TestCluster& cluster) {
  const ProgramResult result =
      RunProgram("baleen", {"generate", "--router", cluster.grpc(), "--token-ids", "0,5,6",
                            "--max-tokens", "3", "--timeout-seconds", "20"});
  return result.exit_code == 0;
}

class Failures : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ = TestCluster::Start({"--prefill", "1", "--decode", "1"});
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override {
    ASSERT_NE(cluster_, nullptr);
    ASSERT_TRUE(Eventually(kRecoverMax, [] { return Answers(*cluster_); })) << cluster_->Log();
    ASSERT_TRUE(Eventually(kRecoverMax, [] { return cluster_->KvBlocksUsed() == 0.0; }));
  }

  // Kills a worker mid-stream: the stream ends with UNAVAILABLE and a reason, and the next requests
  // are served again.
  static void KillAndRecover(const std::string& process) {
    const pid_t victim = cluster_->CurrentPid(process);
    ASSERT_GT(victim, 0);
    const absl::Status status =
        GenerateAnd(*cluster_, [&](cli::Cancellation&) { ASSERT_EQ(::kill(victim, SIGKILL), 0); });
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_FALSE(status.message().empty());
    EXPECT_TRUE(Eventually(kRecoverMax, [] { return Answers(*cluster_); })) << cluster_->Log();
    EXPECT_NE(cluster_->CurrentPid(process), victim);
    EXPECT_THAT(cluster_->Log(), HasSubstr(process + " ended: killed by signal 9"));
  }

  static std::unique_ptr<TestCluster> cluster_;
};

std::unique_ptr<TestCluster> Failures::cluster_;

TEST_F(Failures, AClientThatCancelsFreesItsBlocksWithinASecond) {
  const absl::Status status = GenerateAnd(*cluster_, [&](cli::Cancellation& cancellation) {
    EXPECT_GT(cluster_->KvBlocksUsed().value_or(0), 0.0);
    cancellation.Cancel();
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_TRUE(Eventually(kFreeMax, [] { return cluster_->KvBlocksUsed() == 0.0; }));
}

TEST_F(Failures, AClientThatIsKilledFreesItsBlocksWithinASecond) {
  auto client = LaunchLongClient(*cluster_);
  ASSERT_TRUE(client.ok()) << client.status();
  EXPECT_TRUE(Eventually(kRecoverMax, [] { return cluster_->KvBlocksUsed().value_or(0) > 0; }));
  client->Signal(SIGKILL);
  EXPECT_TRUE(Eventually(kFreeMax, [] { return cluster_->KvBlocksUsed() == 0.0; }));
}

TEST_F(Failures, TheDecodeWorkerIsKilledMidStream) { KillAndRecover("decode-0.0"); }

TEST_F(Failures, TheRouterIsKilledMidStreamAndComesBackOnItsAddress) { KillAndRecover("router"); }

TEST_F(Failures, ThePrefillWorkerIsKilledAndComesBack) {
  const pid_t victim = cluster_->CurrentPid("prefill-0.0");
  ASSERT_EQ(::kill(victim, SIGKILL), 0);
  EXPECT_TRUE(Eventually(kRecoverMax, [&] {
    const pid_t now = cluster_->CurrentPid("prefill-0.0");
    return now != victim && Answers(*cluster_);
  })) << cluster_->Log();
}

TEST_F(Failures, AKilledWorkerLeavesNoZombie) {
  const pid_t victim = cluster_->CurrentPid("decode-0.0");
  ASSERT_EQ(::kill(victim, SIGKILL), 0);
  EXPECT_TRUE(Eventually(absl::Seconds(5) * kSlowness, [&] { return !IsRunning(victim); }))
      << "a zombie still answers signal 0";
}

TEST(NoWorkers, TheAnswerIsUnavailableAtOnce) {
  auto router = cli::ChildProcess::Launch(
      {.executable = BinaryPath("baleen-router"),
       .arguments = {"--model", kModel, "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
                     "--metrics-listen", "127.0.0.1:0", "--die-with-parent"}});
  ASSERT_TRUE(router.ok()) << router.status();
  std::string out;
  ASSERT_TRUE(Eventually(kRecoverMax, [&] {
    ReadAvailable(router->stdout_number(), out);
    return out.find('\n') != std::string::npos;
  }));
  const auto ready = nlohmann::json::parse(out);
  const std::string grpc = ready["grpc"];
  const auto expect_unavailable = [&](const std::string& words) {
    const ProgramResult result =
        RunProgram("baleen", {"chat", "--router", grpc, "--once", "What is 2 + 3?", "--json"});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("error: UNAVAILABLE: no_worker: "));
    EXPECT_THAT(result.err, HasSubstr(words));
    EXPECT_LT(result.took, absl::Seconds(5) * kSlowness);
  };
  expect_unavailable("");

  auto worker = cli::ChildProcess::Launch(
      {.executable = BinaryPath("baleen-worker"),
       .arguments = {"--model", kModel, "--role", "prefill", "--router",
                     ready["workers"].get<std::string>(), "--metrics-listen", "127.0.0.1:0",
                     "--die-with-parent"}});
  ASSERT_TRUE(worker.ok()) << worker.status();
  ASSERT_TRUE(Eventually(kRecoverMax, [&] {
    const ProgramResult chat = RunProgram("baleen", {"chat", "--router", grpc, "--once", "2+3?"});
    return chat.err.find("decode") != std::string::npos;
  })) << "a prefill worker alone: the error names the decode worker that is missing";
}

// A cluster's processes become children of this one when `baleen up` dies, so that their end can be
// seen.
class Ending : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    cluster_ = TestCluster::Start({"--prefill", "1", "--decode", "1"});
    ASSERT_NE(cluster_, nullptr);
    pids_ = cluster_->pids();
    ASSERT_EQ(pids_.size(), 3u);
  }
  void TearDown() override { ::prctl(PR_SET_CHILD_SUBREAPER, 0); }

  void ExpectNothingLeft(absl::Duration within) {
    for (const auto& [name, pid] : pids_) {
      EXPECT_TRUE(Eventually(within, [pid = pid] { return !IsRunning(pid); })) << name;
    }
  }

  std::unique_ptr<TestCluster> cluster_;
  std::map<std::string, pid_t> pids_;
};

TEST_F(Ending, SigtermStopsEverythingInOrder) {
  EXPECT_EQ(cluster_->Stop(SIGTERM), 0);
  ExpectNothingLeft(absl::ZeroDuration());
}

TEST_F(Ending, HangupStopsEverything) {
  EXPECT_EQ(cluster_->Stop(SIGHUP), 0);
  ExpectNothingLeft(absl::ZeroDuration());
}

TEST_F(Ending, AKilledSupervisorLeavesNoOrphans) {
  const auto wait_status = cluster_->Stop(SIGKILL);
  ASSERT_TRUE(wait_status.has_value());
  EXPECT_TRUE(WIFSIGNALED(*wait_status));
  ExpectNothingLeft(absl::Seconds(20) * kSlowness);
}

// The children of a killed supervisor finished what ran first, ten seconds long, on addresses that
// its successor was to have.
TEST_F(Ending, AKilledSupervisorTakesABusyClusterWithItAtOnce) {
  auto client = LaunchLongClient(*cluster_);
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(Eventually(kRecoverMax, [&] { return cluster_->KvBlocksUsed().value_or(0) > 0; }));
  ASSERT_TRUE(cluster_->Stop(SIGKILL).has_value());
  ExpectNothingLeft(absl::Seconds(3) * kSlowness);
}

}  // namespace
}  // namespace baleen::integration
