// A rank of a group dies or stands still in the middle of replies: they end with a reason, and the
// group comes back.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "observability/base/clock.h"
#include "tests/integration/program.h"
#include "tests/integration/test_cluster.h"

namespace baleen::integration {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kStepWaitMs = 1000 * (kSlowness > 1 ? 4 : 1);
const absl::Duration kCallMax = absl::Seconds(60) * kSlowness;
const absl::Duration kReturnMax = absl::Seconds(30) * kSlowness;
// The promise, from a rank's return to the group's first answer.
const absl::Duration kFormMax = absl::Seconds(5) * kSlowness;

class GroupFailures : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    cluster_ =
        TestCluster::Start({"--mixed", "1x2", "--step-wait-ms", std::to_string(kStepWaitMs)});
  }
  static void TearDownTestSuite() { cluster_.reset(); }
  void SetUp() override {
    ASSERT_NE(cluster_, nullptr);
    ASSERT_TRUE(Eventually(kReturnMax, [] { return Answers(); })) << cluster_->Log();
  }

  static bool Answers() {
    return RunProgram("baleen", {"generate", "--router", cluster_->grpc(), "--token-ids", "0,5,6",
                                 "--max-tokens", "3", "--timeout-seconds", "20"})
               .exit_code == 0;
  }

  // A long reply; calls `meanwhile` once after some tokens have come.
  static absl::Status GenerateAnd(const std::function<void()>& meanwhile) {
    v1::GenerateRequest request;
    for (const int id : {0, 5, 6}) request.mutable_token_ids()->add_ids(id);
    request.mutable_stop()->set_max_tokens(4000);
    request.mutable_stop()->set_ignore_eos(true);
    cli::Cancellation never;
    int chunks = 0;
    return cli::InferenceClient(cluster_->grpc())
        .Generate(request, kCallMax, never, [&](const v1::GenerateChunk&) {
          if (++chunks == 5) meanwhile();
        });
  }

  static std::unique_ptr<TestCluster> cluster_;
};

std::unique_ptr<TestCluster> GroupFailures::cluster_;

class KilledRank : public GroupFailures, public ::testing::WithParamInterface<const char*> {};

TEST_P(KilledRank, EndsTheReplyWithAReasonAndTheGroupComesBack) {
  const std::string process = GetParam();
  const pid_t victim = cluster_->CurrentPid(process);
  ASSERT_GT(victim, 0);
  absl::Duration killed;
  const absl::Status status = GenerateAnd([&] {
    ASSERT_EQ(::kill(victim, SIGKILL), 0);
    killed = SystemClock().Monotonic();
  });
  EXPECT_LT(SystemClock().Monotonic() - killed, absl::Seconds(2) * kSlowness)
      << "an end is noticed, not waited out";
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_FALSE(status.message().empty());
  ASSERT_TRUE(Eventually(kReturnMax, [&] { return cluster_->CurrentPid(process) != victim; }))
      << cluster_->Log();
  EXPECT_TRUE(Eventually(kFormMax, [] { return Answers(); })) << cluster_->Log();
}

INSTANTIATE_TEST_SUITE_P(Ranks, KilledRank, ::testing::Values("mixed-0.0", "mixed-0.1"),
                         [](const auto& info) { return std::string("Rank") + info.param[8]; });

TEST_F(GroupFailures, ARankThatStandsStillIsNamedWithThePhase) {
  // The request may be on either rank: the other one of the two is stopped, as is seen by whose
  // sequences run.
  std::string stopped;
  absl::Duration since;
  const absl::Status status = GenerateAnd([&] {
    const auto running = cluster_->Metric("mixed-0.0", "baleen_worker_sequences_running");
    stopped = running.value_or(0) > 0 ? "1" : "0";
    ASSERT_EQ(::kill(cluster_->CurrentPid("mixed-0." + stopped), SIGSTOP), 0);
    since = SystemClock().Monotonic();
  });
  const absl::Duration took = SystemClock().Monotonic() - since;
  ASSERT_EQ(::kill(cluster_->CurrentPid("mixed-0." + stopped), SIGCONT), 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("rank " + stopped));
  EXPECT_THAT(std::string(status.message()),
              AnyOf(HasSubstr("step"), HasSubstr("dispatch"), HasSubstr("combine")));
  EXPECT_LT(took, absl::Milliseconds(2 * kStepWaitMs) + absl::Seconds(1));
  EXPECT_TRUE(Eventually(kFormMax, [] { return Answers(); })) << cluster_->Log();
}

// Rank 0 of a group whose other rank does not come.
std::vector<std::string> LonelyRank(const std::string& address, const char* join_seconds) {
  return {"--model",          kModel,
          "--role",           "mixed",
          "--ranks",          "2",
          "--rank",           "0",
          "--group-leader",   fmt::format("unix-abstract:baleen-test-{}-{}", ::getpid(), address),
          "--join-seconds",   join_seconds,
          "--router",         "127.0.0.1:1",
          "--die-with-parent"};
}

// A rank whose group did not form said "asked to stop before the group had formed": the group that
// gave up had asked for the stop itself.
TEST(LonelyRank, SaysWhichRankIsMissing) {
  const ProgramResult result = RunProgram("baleen-worker", LonelyRank("missing", "1"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("error: group mixed-0: waited 1s for rank 1 of 2"));
}

// A rank that was told to stop while it waited for its group ended with an error, and with it
// `baleen up` that was interrupted while it started.
TEST(LonelyRank, StopsInOrderWhileItWaits) {
  auto worker = cli::ChildProcess::Launch(
      {.executable = BinaryPath("baleen-worker"), .arguments = LonelyRank("stop", "600")});
  ASSERT_TRUE(worker.ok()) << worker.status();
  std::string log;
  ASSERT_TRUE(Eventually(kReturnMax, [&] {
    ReadAvailable(worker->stderr_number(), log);
    return log.find("model loaded") != std::string::npos;
  })) << log;
  worker->Signal(SIGTERM);
  std::optional<int> wait_status;
  ASSERT_TRUE(Eventually(kReturnMax, [&] {
    ReadAvailable(worker->stderr_number(), log);
    wait_status = worker->Reap();
    return wait_status.has_value();
  })) << log;
  EXPECT_EQ(*wait_status, 0) << log;
}

}  // namespace
}  // namespace baleen::integration
