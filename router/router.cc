#include "router/router.h"

#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "proto/contract/status.h"
#include "security/transport.h"

namespace baleen::router {
namespace {

void WarnOfOpenDoor(std::string_view flag, const std::string& address,
                    const RouterOptions& options) {
  const bool keys = !options.access.api_keys_file.empty();
  const bool tls = !options.tls.certificate.empty();
  if ((keys && tls) || address.empty() || security::StaysOnThisMachine(address)) return;
  log::Warning("clients beyond this machine can come in",
               {{"flag", flag}, {"address", address}, {"api_keys", keys}, {"tls", tls}});
}

std::uint64_t MemoryLimitOf(const RouterOptions& options) {
  const std::uint64_t given = std::uint64_t{options.memory_megabytes_max} << 20;
  return given > 0 ? given : MemoryLimitOfControlGroup();
}

// A sixteenth of what is inside at each reading, until there is enough memory again.
void CancelForMemory(Dispatcher& dispatcher) {
  const DispatchCounts counts = dispatcher.counts();
  dispatcher.CancelLowest(1 + (counts.running + counts.waiting) / 16,
                          contract::MakeStatus(contract::Reason::kQueueFull,
                                               "ended because this router is short of memory"));
}

}  // namespace

Router::Router(const RouterOptions& options, const Clock& clock, Models models)
    : clock_(clock),
      number_(contract::RandomNonZero()),
      metrics_(metrics_registry_, {.version = BALEEN_VERSION, .component = "router"}),
      models_(std::move(models)),
      admission_({.requests_max = options.requests_max,
                  .bytes_max = std::uint64_t{options.request_megabytes_max} << 20},
                 clock),
      dispatcher_({.queue_wait_max = options.queue_wait_max, .draw_seed = number_}, clock,
                  contract::RandomNonZero),
      memory_({.limit_bytes = MemoryLimitOf(options)}, clock, admission_,
              [this] { CancelForMemory(dispatcher_); }),
      registry_({.models = models_.Served()}, clock, dispatcher_) {}

absl::StatusOr<std::unique_ptr<Router>> Router::Start(const RouterOptions& options,
                                                      const Clock& clock,
                                                      const RouterTuning& tuning) {
  BALEEN_ASSIGN_OR_RETURN(Models models, Models::Load(options.models));
  std::unique_ptr<Router> self(new Router(options, clock, std::move(models)));

  BALEEN_RETURN_IF_ERROR(self->OpenFiles(options));

  AttachServerOptions attach = tuning.attach;
  attach.listen = options.worker_listen;
  attach.certificates = self->worker_certificates_;
  BALEEN_ASSIGN_OR_RETURN(
      self->attach_,
      AttachServer::Start(attach, {.router = self->number_,
                                   .clock = clock,
                                   .registry = self->registry_,
                                   .dispatcher = self->dispatcher_,
                                   .metrics = self->metrics_,
                                   .on_tick = [watch = &self->memory_] { watch->Tick(); }}));

  InferenceServerOptions inference = tuning.inference;
  inference.listen = options.listen;
  inference.certificates = self->client_certificates_;
  inference.keys = self->access_->keys.get();
  inference.client_threads = options.client_threads;
  inference.text_pool.threads = options.text_threads;
  inference.shard.generation.request_wait_max = options.request_wait_max;
  BALEEN_ASSIGN_OR_RETURN(
      self->inference_,
      InferenceServer::Start(inference,
                             {.router = self->number_,
                              .clock = clock,
                              .models = self->models_,
                              .admission = self->admission_,
                              .access = *self->access_,
                              .port = *self->attach_,
                              .view = [&registry = self->registry_] { return registry.view(); },
                              .metrics = self->metrics_}));
  BALEEN_RETURN_IF_ERROR(self->StartHttp(options, tuning));
  return self;
}

absl::Status Router::StartHttp(const RouterOptions& options, const RouterTuning& tuning) {
  openai::HttpServerOptions http = tuning.http;
  http.http.listen = options.http_listen;
  http.http.threads = options.http_threads;
  http.generation.request_wait_max = options.request_wait_max;
  http::TlsContexts tls;
  if (http_tls_ != nullptr) tls = [contexts = http_tls_.get()] { return contexts->Context(); };
  BALEEN_ASSIGN_OR_RETURN(
      http_, openai::HttpServer::Start(http, inference_->generation_parts(), std::move(tls)));
  return absl::OkStatus();
}

// What the options name besides models.
absl::Status Router::OpenFiles(const RouterOptions& options) {
  BALEEN_RETURN_IF_ERROR(
      security::CheckInternal({.flag = "--worker-listen",
                               .address = options.worker_listen,
                               .has_certificates = !options.internal.certificate.empty(),
                               .insecure_allowed = options.insecure_internal}));
  WarnOfOpenDoor("--listen", options.listen, options);
  WarnOfOpenDoor("--http-listen", options.http_listen, options);
  BALEEN_ASSIGN_OR_RETURN(access_, Access::Open(options.access, clock_));
  BALEEN_ASSIGN_OR_RETURN(client_certificates_, security::OpenIfGiven(options.tls, clock_));
  if (client_certificates_ != nullptr) {
    BALEEN_ASSIGN_OR_RETURN(http_tls_, security::HttpTls::Make(client_certificates_));
  }
  BALEEN_ASSIGN_OR_RETURN(worker_certificates_, security::OpenIfGiven(options.internal, clock_));
  return absl::OkStatus();
}

Router::~Router() {
  if (inference_ == nullptr) return;
  StartDraining();
  attach_->EndAll(
      contract::MakeStatus(contract::Reason::kDraining, "this router is shutting down"));
  // Clients first, so that they hear of it; then dispatch, which still refers to their inboxes;
  // then those. Text jobs, which end with the gRPC server, may still post to the HTTP server's
  // loops.
  if (http_ != nullptr) http_->Stop();
  inference_->Stop();
  attach_.reset();
  inference_.reset();
  http_.reset();
}

void Router::StartDraining() {
  inference_->SetServing(false);
  if (http_ != nullptr) http_->SetServing(false);
  admission_.StopAdmitting();
}

}  // namespace baleen::router
