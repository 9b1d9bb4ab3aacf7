// baleen-router: the front door. Reads its options, starts a router, says where it is, and waits to
// be told to stop.
#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/page.h"
#include "router/cluster/grpc_support.h"
#include "router/options.h"
#include "router/router.h"
#include "router/signals.h"

namespace baleen::router {
namespace {

// How often main looks at what still runs while it drains.
constexpr absl::Duration kLook = absl::Milliseconds(50);

// Waits until what runs has finished; a second signal, or the end of the time, cuts it short.
void Drain(const RouterOptions& options, Router& router) {
  log::Info("draining", {{"requests", router.admitted()},
                         {"seconds_max", absl::ToDoubleSeconds(options.drain)}});
  router.StartDraining();
  const absl::Duration limit = SystemClock().Monotonic() + options.drain;
  while (router.admitted() > 0 && SystemClock().Monotonic() < limit) {
    if (AwaitStopSignal(kLook)) break;
  }
  if (router.admitted() > 0) {
    log::Warning("stopping with requests unfinished", {{"requests", router.admitted()}});
  }
}

absl::Status Serve(const RouterOptions& options) {
  BALEEN_ASSIGN_OR_RETURN(const std::unique_ptr<Router> router,
                          Router::Start(options, SystemClock()));
  BALEEN_ASSIGN_OR_RETURN(const std::unique_ptr<metrics::Page> page,
                          metrics::Page::Serve(router->metrics_registry(), options.metrics_listen));
  const nlohmann::ordered_json ready = {{"grpc", router->client_address()},
                                        {"workers", router->worker_address()},
                                        {"metrics", page->address()}};
  std::cout << ready.dump() << std::endl;
  while (!AwaitStopSignal(absl::Hours(1))) {
  }
  Drain(options, *router);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  const int parent = getppid();
  const absl::StatusOr<ParsedOptions> parsed = ParseOptions(argc, argv);
  if (!parsed.ok()) {
    std::cerr << "error: " << parsed.status().message() << std::endl;
    return 2;
  }
  if (!parsed->help.empty()) {
    std::cout << parsed->help << std::flush;
    return 0;
  }
  const RouterOptions& options = parsed->options;
  log::Init("router", options.log_format, options.log_level);
  QuietGrpcLog();
  BlockStopSignals();
  if (options.die_with_parent && !DieWithParent(parent)) return 1;
  if (const absl::Status status = Serve(options); !status.ok()) {
    std::cerr << "error: " << status.message() << std::endl;
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace baleen::router

int main(int argc, char** argv) { return baleen::router::Main(argc, argv); }
