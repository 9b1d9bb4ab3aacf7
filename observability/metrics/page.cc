#include "observability/metrics/page.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace baleen::metrics {

namespace {

// Connects to ourselves; no matter whether it succeeds.
void Knock(std::uint16_t port) {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (connection < 0) return;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (void)connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  close(connection);
}

}  // namespace

Page::Page(std::unique_ptr<prometheus::Exposer> exposer, std::string address, std::uint16_t port)
    : exposer_(std::move(exposer)), address_(std::move(address)), port_(port) {}

// civetweb looks at its stop flag when a connection comes in, else every two seconds: so one comes
// in.
Page::~Page() {
  std::promise<void> stopped;
  std::jthread stopper([this, &stopped] {
    exposer_.reset();
    stopped.set_value();
  });
  const std::future<void> over = stopped.get_future();
  do {
    Knock(port_);
  } while (over.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready);
}

absl::StatusOr<std::unique_ptr<Page>> Page::Serve(const Registry& registry,
                                                  const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("metrics address '{}' is not host:port", address));
  }
  try {
    // civetweb keeps a thread for each connection, even one that says nothing: such a one goes
    // after a second, and until then there are threads left for others.
    auto exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", "8",
                                 "request_timeout_ms", "1000", "keep_alive_timeout_ms", "1000"});
    exposer->RegisterCollectable(registry.shared());
    const int port = exposer->GetListeningPorts().at(0);
    return std::unique_ptr<Page>(new Page(std::move(exposer),
                                          fmt::format("{}:{}", address.substr(0, colon), port),
                                          static_cast<std::uint16_t>(port)));
  } catch (const std::exception&) {
    return absl::AlreadyExistsError(fmt::format(
        "cannot listen on metrics address {}: the port is in use or not allowed", address));
  }
}

}  // namespace baleen::metrics
