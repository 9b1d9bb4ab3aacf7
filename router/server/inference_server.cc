#include "router/server/inference_server.h"

#include <fmt/format.h>
#include <grpc/health/v1/health.pb.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <mutex>
#include <utility>

#include "observability/base/status_macros.h"
#include "router/cluster/grpc_support.h"
#include "security/grpc/server_credentials.h"

namespace baleen::router {
namespace {

// For clients to take their last status when the router stops.
constexpr std::chrono::milliseconds kStopWait{500};

// Process-wide, and before the first server is built.
void EnablePlugins() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::EnableDefaultHealthCheckService(true);
    // gRPC serves health without a descriptor that reflection could find; this links one in.
    (void)grpc::health::v1::HealthCheckRequest::descriptor();
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  });
}

void SetLimits(const InferenceServerOptions& options, grpc::ServerBuilder& builder) {
  LimitServer(builder);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.streams_max);
  grpc::ResourceQuota quota("clients");
  quota.Resize(options.buffer_bytes_max);
  builder.SetResourceQuota(quota);
  // Health and reflection only; everything else has its own threads.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
}

}  // namespace

InferenceServer::InferenceServer(const InferenceServerOptions& options, const ServerParts& parts,
                                 grpc::ServerBuilder& builder)
    : parts_(parts),
      text_pool_(std::make_unique<TextPool>(options.text_pool)),
      generation_parts_{.server = parts_, .text_pool = *text_pool_, .numbers = numbers_} {
  builder.RegisterService(&service_);
  const ShardParts shard_parts{.generation = generation_parts_, .service = service_};
  for (std::size_t i = 0; i < options.client_threads; ++i) {
    shards_.push_back(
        std::make_unique<Shard>(options.shard, shard_parts, builder.AddCompletionQueue()));
  }
}

absl::StatusOr<std::unique_ptr<InferenceServer>> InferenceServer::Start(
    const InferenceServerOptions& options, const ServerParts& parts) {
  EnablePlugins();
  BALEEN_ASSIGN_OR_RETURN(const std::string host, HostOf("client address", options.listen));
  security::ServerSecurity security{.port = security::Port::kClients,
                                    .certificates = options.certificates};
  if (options.keys != nullptr && options.keys->required()) {
    security.check_key = [keys = options.keys](std::string_view authorization) {
      return keys->Authenticate(authorization).status();
    };
  }
  BALEEN_ASSIGN_OR_RETURN(const auto credentials, security::MakeServerCredentials(security));
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  int port = 0;
  builder.AddListeningPort(options.listen, credentials, &port);
  std::unique_ptr<InferenceServer> self(new InferenceServer(options, parts, builder));
  self->server_ = builder.BuildAndStart();
  if (self->server_ == nullptr || port == 0) {
    return absl::AlreadyExistsError(fmt::format(
        "cannot listen for clients on {}: the port is in use or not allowed", options.listen));
  }
  self->address_ = fmt::format("{}:{}", host, port);
  self->SetServing(true);
  for (const auto& shard : self->shards_) shard->Start();
  return self;
}

InferenceServer::~InferenceServer() {
  Stop();
  // Its jobs post to the shards' loops, which are closed but still there.
  text_pool_.reset();
  shards_.clear();
}

void InferenceServer::Stop() {
  if (server_ == nullptr || stopped_) return;
  stopped_ = true;
  for (const auto& shard : shards_) shard->Stop();
  server_->Shutdown(std::chrono::system_clock::now() + kStopWait);
  for (const auto& shard : shards_) shard->Join();
}

void InferenceServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);
  health->SetServingStatus(v1::Inference::service_full_name(), serving);
}

}  // namespace baleen::router
