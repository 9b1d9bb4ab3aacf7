#include "router/cluster/attach_server.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <utility>

#include "observability/base/status_macros.h"
#include "router/cluster/grpc_support.h"
#include "security/grpc/server_credentials.h"

namespace baleen::router {
namespace {

// For streams to take their last status when the router stops.
constexpr std::chrono::milliseconds kStopWait{500};

}  // namespace

AttachServer::AttachServer(const AttachServerOptions& options, const AttachServerParts& parts,
                           grpc::ServerBuilder& builder)
    : parts_(parts),
      loop_((builder.RegisterService(&service_), builder.AddCompletionQueue())),
      context_{.service = service_,
               .queue = loop_.queue(),
               .registry = parts.registry,
               .dispatcher = parts.dispatcher,
               .clock = parts.clock,
               .welcome = {.router = parts.router,
                           .heartbeat_ms = options.heartbeat_ms,
                           .lease_ms = options.lease_ms},
               .send_queue_bytes_max = options.send_queue_bytes_max,
               .hello_wait_max = options.hello_wait_max,
               .closing_wait_max = options.closing_wait_max,
               .on_called = [this] { Accept(); },
               .on_stale = [this] { ++stale_frames_; }},
      streams_max_(options.streams_max),
      tick_(options.tick) {}

absl::StatusOr<std::unique_ptr<AttachServer>> AttachServer::Start(
    const AttachServerOptions& options, const AttachServerParts& parts) {
  BALEEN_ASSIGN_OR_RETURN(const std::string host, HostOf("worker address", options.listen));
  BALEEN_ASSIGN_OR_RETURN(const auto credentials,
                          security::MakeServerCredentials({.port = security::Port::kWorkers,
                                                           .certificates = options.certificates}));
  grpc::ServerBuilder builder;
  LimitServer(builder);
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  std::unique_ptr<AttachServer> self(new AttachServer(options, parts, builder));
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr || port == 0) {
    return absl::AlreadyExistsError(fmt::format(
        "cannot listen for workers on {}: the port is in use or not allowed", options.listen));
  }
  self->address_ = fmt::format("{}:{}", host, port);
  self->thread_ = std::thread([server = self.get()] {
    server->Accept();
    server->loop_.Run(server->tick_, [server] { server->Tick(); });
  });
  return self;
}

AttachServer::~AttachServer() {
  if (!thread_.joinable()) {  // it never started
    loop_.Close();
    loop_.Run(tick_, [] {});
    return;
  }
  loop_.Post([this] { stopping_ = true; });
  server_->Shutdown(std::chrono::system_clock::now() + kStopWait);
  thread_.join();
}

void AttachServer::Submit(Request request) {
  loop_.Post([this, request = std::move(request)]() mutable {
    parts_.dispatcher.Submit(std::move(request));
  });
}

void AttachServer::Cancel(contract::RequestId id) {
  loop_.Post([this, id] { parts_.dispatcher.Cancel(id); });
}

void AttachServer::EndAll(absl::Status status) {
  loop_.Post([this, status = std::move(status)]() mutable {
    parts_.dispatcher.EndAll(std::move(status));
  });
}

void AttachServer::Accept() {
  accepting_ = streams_.size() < streams_max_;
  if (accepting_) streams_.emplace_back(context_);
}

void AttachServer::Tick() {
  for (AttachStream& stream : streams_) stream.Tick();
  std::erase_if(streams_, [](const AttachStream& stream) { return stream.over(); });
  if (!accepting_ && !stopping_) Accept();
  parts_.registry.Tick();
  parts_.dispatcher.Tick();
  if (parts_.on_tick) parts_.on_tick();
  ExportMetrics();
  if (stopping_ && streams_.empty() && !closed_) {
    closed_ = true;
    loop_.Close();
  }
}

void AttachServer::ExportMetrics() {
  metrics::RouterMetrics& metrics = parts_.metrics;
  const DispatchCounts counts = parts_.dispatcher.counts();
  metrics.requests_running.Set(static_cast<double>(counts.running));
  // The client threads count those that wait for text work on the same gauge.
  const auto waiting = static_cast<double>(counts.waiting);
  metrics.requests_waiting.Add(waiting - waiting_exported_);
  waiting_exported_ = waiting;
  metrics.workers_attached_prefill.Set(parts_.registry.Attached(Role::kPrefill));
  metrics.workers_attached_decode.Set(parts_.registry.Attached(Role::kDecode));
  metrics.workers_attached_mixed.Set(parts_.registry.Attached(Role::kMixed));
  const std::uint64_t stale = stale_frames_ + counts.stale_frames_total;
  metrics.stale_frames_total.Add(static_cast<double>(stale - stale_frames_exported_));
  stale_frames_exported_ = stale;
}

}  // namespace baleen::router
