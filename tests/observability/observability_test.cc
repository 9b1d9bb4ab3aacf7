// Clock and metrics.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "observability/base/clock.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/group_metrics.h"
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
  const std::vector<std::string> names = {"a"};
  const metrics::GroupMetrics group(registry, names, names, 1);
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
  EXPECT_GT(metrics_found, 30);
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

// A connection to this machine that is there, and says nothing. -1 if there is none.
int ConnectTo(const std::string& address) {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port =
      htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(connection, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
    return connection;
  }
  close(connection);
  return -1;
}

// Two connections that said nothing kept the page from everybody for as long as they stayed.
TEST(Metrics, IdleConnectionsDoNotBlockThePage) {
  metrics::Registry registry;
  const metrics::WorkerMetrics worker(registry, {.version = "1", .component = "worker"});
  auto page = metrics::Page::Serve(registry, "127.0.0.1:0");
  ASSERT_TRUE(page.ok()) << page.status();
  std::vector<int> idle(12);  // more than there are threads
  for (int& connection : idle) ASSERT_GE(connection = ConnectTo((*page)->address()), 0);
  const int scraper = ConnectTo((*page)->address());
  ASSERT_GE(scraper, 0);
  const std::string question = "GET /metrics HTTP/1.0\r\n\r\n";
  ASSERT_EQ(write(scraper, question.data(), question.size()),
            static_cast<ssize_t>(question.size()));
  pollfd answer{.fd = scraper, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&answer, 1, 20'000), 1);
  std::array<char, 12> head{};
  ASSERT_EQ(read(scraper, head.data(), head.size()), static_cast<ssize_t>(head.size()));
  EXPECT_EQ(std::string_view(head.data(), head.size()), "HTTP/1.1 200");
  close(scraper);
  for (const int connection : idle) close(connection);
}

}  // namespace
}  // namespace baleen
