#include "router/router.h"

#include <utility>

#include "observability/base/status_macros.h"
#include "proto/contract/ids.h"
#include "proto/contract/status.h"

namespace baleen::router {

Router::Router(const RouterOptions& options, const Clock& clock, Models models)
    : clock_(clock),
      number_(contract::RandomNonZero()),
      metrics_(metrics_registry_, {.version = BALEEN_VERSION, .component = "router"}),
      models_(std::move(models)),
      admission_({.requests_max = options.requests_max,
                  .bytes_max = std::uint64_t{options.request_megabytes_max} << 20},
                 clock),
      dispatcher_({.queue_wait_max = options.queue_wait_max}, clock, contract::RandomNonZero),
      registry_({.models = models_.Served()}, clock, dispatcher_) {}

absl::StatusOr<std::unique_ptr<Router>> Router::Start(const RouterOptions& options,
                                                      const Clock& clock,
                                                      const RouterTuning& tuning) {
  BALEEN_ASSIGN_OR_RETURN(Models models, Models::Load(options.models));
  std::unique_ptr<Router> self(new Router(options, clock, std::move(models)));

  AttachServerOptions attach = tuning.attach;
  attach.listen = options.worker_listen;
  BALEEN_ASSIGN_OR_RETURN(self->attach_,
                          AttachServer::Start(attach, {.router = self->number_,
                                                       .clock = clock,
                                                       .registry = self->registry_,
                                                       .dispatcher = self->dispatcher_,
                                                       .metrics = self->metrics_}));

  InferenceServerOptions inference = tuning.inference;
  inference.listen = options.listen;
  inference.client_threads = options.client_threads;
  inference.text_pool.threads = options.text_threads;
  inference.shard.request_wait_max = options.request_wait_max;
  BALEEN_ASSIGN_OR_RETURN(
      self->inference_,
      InferenceServer::Start(inference,
                             {.router = self->number_,
                              .clock = clock,
                              .models = self->models_,
                              .admission = self->admission_,
                              .port = *self->attach_,
                              .view = [&registry = self->registry_] { return registry.view(); },
                              .metrics = self->metrics_}));
  return self;
}

Router::~Router() {
  if (inference_ == nullptr) return;
  StartDraining();
  attach_->EndAll(
      contract::MakeStatus(contract::Reason::kDraining, "this router is shutting down"));
  // Clients first, so that they hear of it; then dispatch, which still refers to their inboxes;
  // then those.
  inference_->Stop();
  attach_.reset();
  inference_.reset();
}

void Router::StartDraining() {
  inference_->SetServing(false);
  admission_.StopAdmitting();
}

}  // namespace baleen::router
