// Clock and metrics.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/metrics.h"
#include "observability/metrics/page.h"

namespace baleen {
namespace {

TEST(ManualClock, MovesOnlyWhenTold) {
  ManualClock clock;
  const absl::Duration start = clock.Monotonic();
  const absl::Time wall = clock.Wall();
  EXPECT_EQ(clock.Monotonic(), start);
  clock.Advance(absl::Milliseconds(250));
  EXPECT_EQ(clock.Monotonic() - start, absl::Milliseconds(250));
  EXPECT_EQ(clock.Wall() - wall, absl::Milliseconds(250));
}

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return value / 2;
}

absl::StatusOr<int> Quarter(int value) {
  BALEEN_ASSIGN_OR_RETURN(const int half, Half(value));
  BALEEN_ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}

TEST(StatusMacros, PropagateTheFirstError) {
  EXPECT_EQ(Quarter(8).value(), 2);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
}

TEST(Metrics, UnknownOutcomeDoesNotGrowTheLabelSet) {
  metrics::Registry registry;
  const metrics::WorkerMetrics worker(registry, {.version = "1", .component = "worker"});
  worker.RequestsTotal("finished").Add();
  worker.RequestsTotal("something else").Add();
  const std::string page = registry.Text();
  EXPECT_NE(page.find("baleen_worker_requests_total{outcome=\"finished\"} 1"), std::string::npos);
  EXPECT_NE(page.find("baleen_worker_requests_total{outcome=\"internal\"} 1"), std::string::npos);
  EXPECT_EQ(page.find("something else"), std::string::npos);
}

// docs/metrics.md is complete, and says what the process says.
TEST(Metrics, DocumentationListsEveryMetricWithItsHelp) {
  metrics::Registry registry;
  const metrics::RouterMetrics router(registry, {.version = "1", .component = "router"});
  const metrics::WorkerMetrics worker(registry, {.version = "1", .component = "worker"});
  std::stringstream file;
  file << std::ifstream("docs/metrics.md").rdbuf();
  const std::string docs = file.str();
  std::istringstream page(registry.Text());
  int metrics_found = 0;
  for (std::string line; std::getline(page, line);) {
    if (!line.starts_with("# HELP ")) continue;
    const std::size_t space = line.find(' ', 7);
    const std::string name = line.substr(7, space - 7);
    const std::string help = line.substr(space + 1);
    ++metrics_found;
    EXPECT_NE(docs.find("| `" + name + "` |"), std::string::npos) << name;
    EXPECT_NE(docs.find(" | " + help + " |"), std::string::npos) << name << ": " << help;
  }
  EXPECT_GT(metrics_found, 20);
}

TEST(Metrics, PageSaysWhichAddressIsTaken) {
  metrics::Registry registry;
  auto page = metrics::Page::Serve(registry, "127.0.0.1:0");
  ASSERT_TRUE(page.ok()) << page.status();
  const auto second = metrics::Page::Serve(registry, (*page)->address());
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().message().find((*page)->address()), absl::string_view::npos);
  EXPECT_EQ(metrics::Page::Serve(registry, "nowhere").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace baleen
