// Supervisor: the loop with real processes that behave as the test wants (fake_child.cc).
#include "tools/cli/cluster/supervisor.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <vector>

#include "tools/cli/cluster/signals.h"

namespace baleen::cli {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class SupervisorTest : public ::testing::Test {
 protected:
  void SetUp() override { BlockSignals(); }

  SupervisorOptions Options(const std::string& behaviour) {
    return {.spec = {.model_directory = behaviour, .prefill = {1}, .decode = {1}},
            .router_executable = FAKE_CHILD,
            .worker_executable = FAKE_CHILD,
            .answers = [](const RunningCluster&) { return true; },
            .on_ready =
                [this](const RunningCluster& cluster) {
                  cluster_ = cluster;
                  supervisor_->RequestStop();
                },
            .on_log =
                [this](std::string_view process, std::string_view line) {
                  log_.push_back(fmt::format("{}| {}", process, line));
                }};
  }

  absl::Status Run(SupervisorOptions options) {
    auto supervisor = Supervisor::Create(std::move(options), SystemClock());
    if (!supervisor.ok()) return supervisor.status();
    supervisor_ = *std::move(supervisor);
    return supervisor_->Run();
  }

  void ExpectNoChildren() {
    for (const RunningChild& child : cluster_) {
      EXPECT_EQ(::kill(child.pid, 0), -1) << child.spec.name;
      EXPECT_EQ(errno, ESRCH);
    }
  }

  std::unique_ptr<Supervisor> supervisor_;
  RunningCluster cluster_;
  std::vector<std::string> log_;
};

TEST_F(SupervisorTest, BringsAClusterUpAndDown) {
  EXPECT_EQ(Run(Options("good")), absl::OkStatus());
  ASSERT_EQ(cluster_.size(), 3u);
  EXPECT_EQ(cluster_[0].ready.at("grpc"), "127.0.0.1:1001");
  EXPECT_EQ(cluster_[1].ready.at("worker"), "prefill-0.0");
  EXPECT_GT(cluster_[2].pid, 0);
  EXPECT_THAT(log_, Contains(HasSubstr("prefill-0.0| arguments --model good --role prefill")));
  ExpectNoChildren();
}

TEST_F(SupervisorTest, AsksAgainUntilTheClusterAnswers) {
  std::atomic<int> asked = 0;
  SupervisorOptions options = Options("good");
  options.answers = [&](const RunningCluster& cluster) {
    EXPECT_EQ(cluster.size(), 3u);
    return ++asked == 3;
  };
  EXPECT_EQ(Run(std::move(options)), absl::OkStatus());
  EXPECT_EQ(asked, 3);
}

TEST_F(SupervisorTest, AStopSignalStops) {
  SupervisorOptions options = Options("good");
  options.stop_signals = StopSignals();
  options.on_ready = [this](const RunningCluster& cluster) {
    cluster_ = cluster;
    ::kill(::getpid(), SIGHUP);
  };
  EXPECT_EQ(Run(std::move(options)), absl::OkStatus());
  EXPECT_THAT(log_, Contains("up| Hangup: stopping"));
  ExpectNoChildren();
}

TEST_F(SupervisorTest, ReportsTheErrorOfAWorkerThatCanNotStart) {
  const absl::Status status = Run(Options("worker-error"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("-0.0: model directory worker-error does not exist"));
  EXPECT_THAT(log_, Not(Contains(HasSubstr("does not exist")))) << "said once, by the caller";
}

TEST_F(SupervisorTest, ReportsTheErrorOfARouterThatCanNotStart) {
  EXPECT_EQ(Run(Options("router-error")).message(),
            "router: model directory router-error does not exist");
}

TEST_F(SupervisorTest, ReportsACrashBeforeReadinessWithTheLastWords) {
  EXPECT_THAT(std::string(Run(Options("worker-crash")).message()),
              HasSubstr("it ended before it was ready: killed by signal 9 (Killed); its last "
                        "line: about to crash"));
}

TEST_F(SupervisorTest, ReportsAReadyLineThatIsNone) {
  EXPECT_THAT(std::string(Run(Options("babble")).message()),
              HasSubstr("its ready line has no text 'worker': hello, I am a worker"));
}

TEST_F(SupervisorTest, ReportsAMissingExecutable) {
  SupervisorOptions options = Options("good");
  options.worker_executable = "/nonexistent/baleen-worker";
  EXPECT_THAT(std::string(Run(std::move(options)).message()),
              HasSubstr("cannot start /nonexistent/baleen-worker: No such file or directory"));
}

TEST_F(SupervisorTest, ABoundedStart) {
  SupervisorOptions options = Options("silent");
  options.limits.ready_within = absl::Milliseconds(50);
  const absl::Status status = Run(std::move(options));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("router has not come up"));
}

TEST_F(SupervisorTest, RestartsAKilledChildOnTheSameAddress) {
  SupervisorOptions options = Options("good");
  options.limits.restart_first = absl::Milliseconds(1);
  options.on_ready = [this](const RunningCluster& cluster) {
    cluster_ = cluster;
    ::kill(cluster[0].pid, SIGKILL);
    log_.clear();
  };
  options.on_log = [this](std::string_view process, std::string_view line) {
    log_.push_back(fmt::format("{}| {}", process, line));
    if (process == "router" && line.find(":1001") != line.npos) supervisor_->RequestStop();
  };
  EXPECT_EQ(Run(std::move(options)), absl::OkStatus());
  EXPECT_THAT(log_, Contains("up| router ended: killed by signal 9 (Killed); starting it again in "
                             "0.0 s"));
  EXPECT_THAT(
      log_, Contains(StartsWith(
                "router| arguments --model good --listen 127.0.0.1:1001 --http-listen "
                "127.0.0.1:1005 --worker-listen 127.0.0.1:1002 --metrics-listen 127.0.0.1:1003")));
}

TEST_F(SupervisorTest, KillsAChildThatDoesNotStop) {
  SupervisorOptions options = Options("stubborn");
  options.limits.drain = absl::Milliseconds(10);
  options.limits.kill_after = absl::Milliseconds(10);
  EXPECT_EQ(Run(std::move(options)), absl::OkStatus());
  ExpectNoChildren();
}

TEST_F(SupervisorTest, RefusesABadSpec) {
  SupervisorOptions options = Options("good");
  options.spec.decode = {0};
  EXPECT_EQ(Run(std::move(options)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baleen::cli
