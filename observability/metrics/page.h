// The metrics page: GET /metrics in Prometheus text format, on a port of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "observability/metrics/metrics.h"

namespace prometheus {
class Exposer;
}

namespace baleen::metrics {

class Page {
 public:
  // Serves `registry` on `address` ("127.0.0.1:0" picks a free port). ALREADY_EXISTS or
  // INVALID_ARGUMENT names the address. The registry must outlive the page. A connection that says
  // nothing for a second is closed, so that it can not keep others from the page.
  static absl::StatusOr<std::unique_ptr<Page>> Serve(const Registry& registry,
                                                     const std::string& address);
  ~Page();

  // The address that is listened on, with the real port.
  const std::string& address() const { return address_; }

 private:
  Page(std::unique_ptr<prometheus::Exposer> exposer, std::string address, std::uint16_t port);

  std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string address_;
  const std::uint16_t port_;
};

}  // namespace baleen::metrics
