#include "tests/integration/test_cluster.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "observability/base/check.h"
#include "tests/integration/program.h"
#include "tools/cli/client/http_get.h"
#include "tools/cli/cluster/signals.h"

namespace baleen::integration {
namespace {

const absl::Duration kStartMax = absl::Seconds(60) * kSlowness;
const absl::Duration kStopMax = absl::Seconds(20) * kSlowness;

std::unique_ptr<TestCluster> split_cluster;
std::unique_ptr<TestCluster> mixed_cluster;

class StopSharedClusters final : public ::testing::Environment {
 public:
  void SetUp() override { cli::BlockSignals(); }
  void TearDown() override {
    split_cluster.reset();
    mixed_cluster.reset();
  }
};
[[maybe_unused]] const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new StopSharedClusters);

}  // namespace

std::unique_ptr<TestCluster> TestCluster::Start(const std::vector<std::string>& arguments,
                                                const std::string& model) {
  std::vector<std::string> all = {"up", "--model", model, "--json", "--die-with-parent"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::unique_ptr<TestCluster> cluster(new TestCluster());
  auto up =
      cli::ChildProcess::Launch({.executable = BinaryPath("baleen"), .arguments = std::move(all)});
  if (!up.ok()) {
    ADD_FAILURE() << up.status();
    return nullptr;
  }
  cluster->up_.emplace(*std::move(up));
  if (!Eventually(kStartMax, [&] { return cluster->ReadReadyLine(); }) || cluster->grpc_.empty()) {
    ADD_FAILURE() << "the cluster does not come up:\n" << cluster->log_;
    return nullptr;
  }
  return cluster;
}

// True when there is nothing more to wait for.
bool TestCluster::ReadReadyLine() {
  ReadPipes();
  const std::size_t newline = out_.find('\n');
  if (newline == std::string::npos) return up_->Reap().has_value();
  line_ = out_.substr(0, newline);
  const auto json = nlohmann::json::parse(line_);
  grpc_ = json["grpc"];
  metrics_["router"] = json["router"]["metrics"];
  pids_["router"] = json["router"]["pid"];
  for (const auto& worker : json["workers"]) {
    metrics_[worker["name"]] = worker["metrics"];
    pids_[worker["name"]] = worker["pid"];
  }
  return true;
}

TestCluster::~TestCluster() {
  if (up_ && !Stop(SIGTERM)) ADD_FAILURE() << "baleen up does not stop:\n" << log_;
}

void TestCluster::ReadPipes() {
  ReadAvailable(up_->stdout_number(), out_);
  ReadAvailable(up_->stderr_number(), log_);
}

const std::string& TestCluster::Log() {
  ReadPipes();
  return log_;
}

std::optional<double> TestCluster::Metric(const std::string& process,
                                          const std::string& series) const {
  const auto page = cli::HttpGet(metrics_.at(process), "/metrics", absl::Seconds(5));
  if (!page.ok()) return std::nullopt;
  return cli::SampleOf(*page, series);
}

std::optional<double> TestCluster::KvBlocksUsed() const {
  double used = 0;
  for (const auto& [name, pid] : pids_) {
    if (name == "router") continue;
    const auto blocks = Metric(name, "baleen_worker_kv_blocks_used");
    if (!blocks) return std::nullopt;
    used += *blocks;
  }
  return used;
}

pid_t TestCluster::CurrentPid(const std::string& process) {
  const std::string words = process + " started, pid ";
  const std::size_t at = Log().rfind(words);
  int pid = -1;
  if (at != std::string::npos) {
    const char* begin = log_.data() + at + words.size();
    std::from_chars(begin, log_.data() + log_.size(), pid);
  }
  return pid;
}

std::optional<int> TestCluster::Stop(int signal_number) {
  if (!up_) return std::nullopt;
  up_->Signal(signal_number);
  std::optional<int> wait_status;
  Eventually(kStopMax, [&] {
    ReadPipes();
    wait_status = up_->Reap();
    return wait_status.has_value();
  });
  ReadPipes();
  up_.reset();
  return wait_status;
}

TestCluster& SplitCluster() {
  if (!split_cluster) split_cluster = TestCluster::Start({"--prefill", "1", "--decode", "1"});
  BALEEN_CHECK(split_cluster != nullptr, "without a cluster there is nothing to test");
  return *split_cluster;
}

TestCluster& MixedCluster() {
  if (!mixed_cluster) {
    mixed_cluster = TestCluster::Start({"--mixed", "1", "--step-tokens-max", "7"});
  }
  BALEEN_CHECK(mixed_cluster != nullptr, "without a cluster there is nothing to test");
  return *mixed_cluster;
}

}  // namespace baleen::integration
