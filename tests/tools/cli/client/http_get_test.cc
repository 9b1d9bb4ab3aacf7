// The metrics page as the command line fetches and reads it.
#include "tools/cli/client/http_get.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <optional>
#include <string>

#include "observability/metrics/page.h"
#include "tools/cli/cluster/descriptor.h"

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

// A port that takes connections and never answers.
class MuteServer {
 public:
  MuteServer() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    EXPECT_EQ(::bind(socket_.number(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(socket_.number(), 1), 0);
    socklen_t size = sizeof(address);
    ::getsockname(socket_.number(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Close() { socket_.Close(); }

 private:
  Descriptor socket_;
  int port_ = 0;
};

TEST(HttpGet, FetchesARealMetricsPage) {
  metrics::Registry registry;
  metrics::RouterMetrics router(registry, {.version = "0.1.0", .component = "router"});
  router.workers_attached_decode.Set(3);
  const auto page = metrics::Page::Serve(registry, "127.0.0.1:0");
  ASSERT_TRUE(page.ok()) << page.status();
  const auto text = HttpGet((*page)->address(), "/metrics", absl::Seconds(10));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(SampleOf(*text, "baleen_router_workers_attached{role=\"decode\"}"), 3.0);
  EXPECT_EQ(SampleOf(*text, "baleen_router_workers_attached{role=\"prefill\"}"), 0.0);

  const auto missing = HttpGet((*page)->address(), "/nowhere", absl::Seconds(10));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("404"));
}

TEST(HttpGet, NobodyThere) {
  MuteServer server;
  const std::string address = server.address();
  server.Close();
  EXPECT_EQ(HttpGet(address, "/", absl::Seconds(10)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(HttpGet, NoAnswerIsBounded) {
  const MuteServer server;
  EXPECT_EQ(HttpGet(server.address(), "/", absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(HttpGet, RefusesAnAddressWithoutPort) {
  for (const char* address : {"", "localhost", ":80", "localhost:"}) {
    EXPECT_EQ(HttpGet(address, "/", absl::Seconds(1)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(SampleOf, TakesTheWholeSeriesName) {
  constexpr char kPage[] =
      "# HELP a_total Text.\n# TYPE a_total counter\na_total{x=\"1\"} 5\na_total 7\na_total_more "
      "9\nb 1.5e+03\nbad x\nlast 2";
  EXPECT_EQ(SampleOf(kPage, "a_total"), 7.0);
  EXPECT_EQ(SampleOf(kPage, "a_total{x=\"1\"}"), 5.0);
  EXPECT_EQ(SampleOf(kPage, "b"), 1500.0);
  EXPECT_EQ(SampleOf(kPage, "last"), 2.0);
  EXPECT_EQ(SampleOf(kPage, "bad"), std::nullopt);
  EXPECT_EQ(SampleOf(kPage, "c"), std::nullopt);
  EXPECT_EQ(SampleOf("", "c"), std::nullopt);
}

}  // namespace
}  // namespace baleen::cli
