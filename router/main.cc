// baleen-router: the front door. Reads its options, starts a router, says where it is, and waits to
// be told to stop.
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "observability/metrics/page.h"
#include "observability/process/run.h"
#include "observability/process/standard_streams.h"
#include "router/cluster/grpc_support.h"
#include "router/options.h"
#include "router/router.h"

namespace baleen::router {
namespace {

void Drain(const RouterOptions& options, Router& router) {
  log::Info("draining", {{"requests", router.admitted()},
                         {"seconds_max", absl::ToDoubleSeconds(options.process.drain)}});
  router.StartDraining();
  if (!process::AwaitIdle(options.process.drain, [&] { return router.admitted() == 0; })) {
    log::Warning("stopping with requests unfinished", {{"requests", router.admitted()}});
  }
}

absl::Status Serve(const RouterOptions& options) {
  QuietGrpcLog();
  BALEEN_ASSIGN_OR_RETURN(const std::unique_ptr<Router> router,
                          Router::Start(options, SystemClock()));
  BALEEN_ASSIGN_OR_RETURN(
      const std::unique_ptr<metrics::Page> page,
      metrics::Page::Serve(router->metrics_registry(), options.process.metrics_listen));
  const nlohmann::ordered_json ready = {{"grpc", router->client_address()},
                                        {"http", router->http_address()},
                                        {"workers", router->worker_address()},
                                        {"metrics", page->address()}};
  BALEEN_RETURN_IF_ERROR(process::PrintToStandardOutput(ready.dump() + "\n"));
  process::AwaitStop();
  Drain(options, *router);
  return absl::OkStatus();
}

}  // namespace
}  // namespace baleen::router

int main(int argc, char** argv) {
  baleen::process::OpenStandardStreams();
  return baleen::process::Run<baleen::router::RouterOptions>(
      baleen::router::ParseOptions(argc, argv), baleen::router::Serve);
}
