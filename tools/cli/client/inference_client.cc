#include "tools/cli/client/inference_client.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "observability/base/status_macros.h"
#include "proto/baleen/v1/inference.grpc.pb.h"
#include "proto/contract/limits.h"
#include "security/files/small_file.h"
#include "security/grpc/channel_credentials.h"

namespace baleen::cli {
namespace {

constexpr std::size_t kApiKeyBytesMax = 256;

std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  grpc::ChannelArguments arguments;
  // The router of a cluster is never behind the HTTP proxy that the environment may name.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(contract::kMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(contract::kMessageBytesMax));
  // After a restart of the router, try again soon. The minimum stays gRPC's own: it is the time
  // limit of a connection attempt too.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

// The file's only line.
absl::StatusOr<std::string> ReadApiKey(const std::string& path) {
  BALEEN_ASSIGN_OR_RETURN(security::SmallFile file, security::ReadSmallFile(path, kApiKeyBytesMax));
  std::string& key = file.text;
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  for (const char c : key) {
    if (c > ' ' && c <= '~') continue;
    return absl::InvalidArgumentError(fmt::format("{} holds more than one API key", path));
  }
  if (key.empty()) return absl::InvalidArgumentError(fmt::format("{} is empty", path));
  return std::move(key);
}

void SetDeadline(absl::Duration within, grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(within));
}

absl::Status ToStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  // The numbers of the two enums are the same by design.
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

void Cancellation::Cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (context_ != nullptr) context_->TryCancel();
}

void Cancellation::Reset() {
  std::lock_guard lock(mutex_);
  cancelled_ = false;
}

bool Cancellation::cancelled() const {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

void Cancellation::Attach(grpc::ClientContext* context) {
  std::lock_guard lock(mutex_);
  context_ = context;
  if (context_ != nullptr && cancelled_) context_->TryCancel();
}

struct InferenceClient::Stub {
  std::unique_ptr<v1::Inference::Stub> inference;
  std::string api_key;  // empty: none

  void Prepare(absl::Duration within, grpc::ClientContext& context) const {
    SetDeadline(within, context);
    if (!api_key.empty()) context.AddMetadata("authorization", "Bearer " + api_key);
  }

  // Reads a stream to its end. `Start` opens it on a context.
  template <typename Chunk, typename Start>
  absl::Status ReadAll(absl::Duration within, Cancellation& cancellation, const Start& start,
                       const std::function<void(const Chunk&)>& on_chunk) {
    grpc::ClientContext context;
    Prepare(within, context);
    cancellation.Attach(&context);  // first: opening the stream may wait for a connection
    const std::unique_ptr<grpc::ClientReader<Chunk>> reader = start(context);
    Chunk chunk;
    while (reader->Read(&chunk)) on_chunk(chunk);
    const grpc::Status status = reader->Finish();
    cancellation.Detach();
    return ToStatus(status);
  }
};

InferenceClient::InferenceClient(const std::string& address)
    : stub_(std::make_unique<Stub>(
          Stub{v1::Inference::NewStub(MakeChannel(address, grpc::InsecureChannelCredentials()))})) {
}

InferenceClient::InferenceClient(std::unique_ptr<Stub> stub) : stub_(std::move(stub)) {}

absl::StatusOr<std::unique_ptr<InferenceClient>> InferenceClient::Open(
    const RouterEndpoint& endpoint) {
  auto credentials = grpc::InsecureChannelCredentials();
  if (!endpoint.tls_ca_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(credentials,
                            security::MakeClientChannelCredentials(endpoint.tls_ca_file));
  }
  auto stub = std::make_unique<Stub>();
  stub->inference = v1::Inference::NewStub(MakeChannel(endpoint.address, credentials));
  if (!endpoint.api_key_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(stub->api_key, ReadApiKey(endpoint.api_key_file));
  }
  return std::unique_ptr<InferenceClient>(new InferenceClient(std::move(stub)));
}

InferenceClient::~InferenceClient() = default;

absl::StatusOr<v1::ListModelsResponse> InferenceClient::ListModels(absl::Duration within) const {
  grpc::ClientContext context;
  stub_->Prepare(within, context);
  v1::ListModelsResponse response;
  const absl::Status status = ToStatus(stub_->inference->ListModels(&context, {}, &response));
  if (!status.ok()) return status;
  return response;
}

absl::Status InferenceClient::Chat(
    const v1::ChatRequest& request, absl::Duration within, Cancellation& cancellation,
    const std::function<void(const v1::ChatChunk&)>& on_chunk) const {
  return stub_->ReadAll<v1::ChatChunk>(
      within, cancellation,
      [&](grpc::ClientContext& context) { return stub_->inference->Chat(&context, request); },
      on_chunk);
}

absl::Status InferenceClient::Generate(
    const v1::GenerateRequest& request, absl::Duration within, Cancellation& cancellation,
    const std::function<void(const v1::GenerateChunk&)>& on_chunk) const {
  return stub_->ReadAll<v1::GenerateChunk>(
      within, cancellation,
      [&](grpc::ClientContext& context) { return stub_->inference->Generate(&context, request); },
      on_chunk);
}

}  // namespace baleen::cli
