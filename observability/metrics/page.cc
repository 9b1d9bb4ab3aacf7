#include "observability/metrics/page.h"

#include <fmt/format.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <exception>
#include <utility>

namespace baleen::metrics {

Page::Page(std::unique_ptr<prometheus::Exposer> exposer, std::string address)
    : exposer_(std::move(exposer)), address_(std::move(address)) {}

Page::~Page() = default;

absl::StatusOr<std::unique_ptr<Page>> Page::Serve(const Registry& registry,
                                                  const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(
        fmt::format("metrics address '{}' is not host:port", address));
  }
  try {
    // Two threads: a slow scraper does not keep a second one waiting.
    auto exposer = std::make_unique<prometheus::Exposer>(address, 2);
    exposer->RegisterCollectable(registry.shared());
    const int port = exposer->GetListeningPorts().at(0);
    return std::unique_ptr<Page>(
        new Page(std::move(exposer), fmt::format("{}:{}", address.substr(0, colon), port)));
  } catch (const std::exception&) {
    return absl::AlreadyExistsError(fmt::format(
        "cannot listen on metrics address {}: the port is in use or not allowed", address));
  }
}

}  // namespace baleen::metrics
