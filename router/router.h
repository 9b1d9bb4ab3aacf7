// A whole router: every part wired to the others. main.cc adds options and signals, tests their own
// clock.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "router/access/access.h"
#include "router/admission/memory_watch.h"
#include "router/cluster/attach_server.h"
#include "router/options.h"
#include "router/server/inference_server.h"
#include "router/server/openai/edge/http_server.h"
#include "security/certificates/certificate_store.h"
#include "security/http_tls.h"

namespace baleen::router {

// What is not an option of the process but differs in tests.
struct RouterTuning {
  AttachServerOptions attach;        // `listen` is overridden
  InferenceServerOptions inference;  // `listen`, threads and deadlines are overridden
  openai::HttpServerOptions http;    // likewise
};

class Router {
 public:
  // Loads the models, listens and serves. `clock` is borrowed. The error names the thing and the
  // limit.
  static absl::StatusOr<std::unique_ptr<Router>> Start(const RouterOptions& options,
                                                       const Clock& clock,
                                                       const RouterTuning& tuning = {});
  // Ends what still runs with kDraining.
  ~Router();
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;

  const std::string& client_address() const { return inference_->address(); }
  const std::string& http_address() const { return http_->address(); }
  const std::string& worker_address() const { return attach_->address(); }

  metrics::Registry& metrics_registry() { return metrics_registry_; }
  metrics::RouterMetrics& metrics() { return metrics_; }

  // For an orderly stop: health says NOT_SERVING, nothing is admitted any more, what runs goes on.
  // Any thread.
  void StartDraining();
  // Requests inside. Any thread.
  std::size_t admitted() const { return admission_.admitted(); }

 private:
  Router(const RouterOptions& options, const Clock& clock, Models models);

  absl::Status OpenFiles(const RouterOptions& options);

  absl::Status StartHttp(const RouterOptions& options, const RouterTuning& tuning);

  const Clock& clock_;
  const std::uint64_t number_;
  metrics::Registry metrics_registry_;
  metrics::RouterMetrics metrics_;
  const Models models_;
  std::unique_ptr<Access> access_;
  std::shared_ptr<security::CertificateStore> client_certificates_;  // null: plaintext
  std::unique_ptr<security::HttpTls> http_tls_;                      // null: plaintext
  std::shared_ptr<security::CertificateStore> worker_certificates_;  // null: plaintext
  Admission admission_;
  Dispatcher dispatcher_;
  MemoryWatch memory_;
  Registry registry_;
  std::unique_ptr<AttachServer> attach_;
  std::unique_ptr<openai::HttpServer> http_;
  std::unique_ptr<InferenceServer> inference_;
};

}  // namespace baleen::router
