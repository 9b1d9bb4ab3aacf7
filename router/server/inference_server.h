// The router's client port: baleen.v1.Inference, grpc.health.v1.Health and server reflection.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/access/key_store.h"
#include "router/server/call.h"
#include "router/server/generation/text_pool.h"
#include "router/server/shard.h"
#include "security/certificates/certificate_store.h"

namespace baleen::router {

struct InferenceServerOptions {
  std::string listen = "127.0.0.1:0";
  std::shared_ptr<security::CertificateStore> certificates;  // null: plaintext
  const KeyStore* keys = nullptr;                            // borrowed; null: everybody may call
  std::size_t client_threads = 1;
  TextPoolOptions text_pool;
  ShardOptions shard;
  // Calls on one connection. More than admission lets in, so that overload is refused with a hint
  // rather than queued by HTTP/2.
  int streams_max = 2048;
  // Of gRPC's buffers on this port.
  std::size_t buffer_bytes_max = std::size_t{1} << 30;
};

class InferenceServer {
 public:
  // Listens and serves. INVALID_ARGUMENT or ALREADY_EXISTS names the address.
  static absl::StatusOr<std::unique_ptr<InferenceServer>> Start(
      const InferenceServerOptions& options, const ServerParts& parts);
  // Precondition: dispatch has stopped, or no request is left there: it refers to what is destroyed
  // here.
  ~InferenceServer();

  // Ends all calls and threads; see Dispatcher::EndAll for telling clients why. Replies of dispatch
  // are dropped from now on.
  void Stop();

  const std::string& address() const { return address_; }

  // For another edge of the same router: one text pool, one row of request numbers.
  const GenerationShardParts& generation_parts() const { return generation_parts_; }

  // What grpc.health.v1 answers, for "" and for baleen.v1.Inference. Any thread. Serving from the
  // start.
  void SetServing(bool serving);

 private:
  InferenceServer(const InferenceServerOptions& options, const ServerParts& parts,
                  grpc::ServerBuilder& builder);

  const ServerParts parts_;
  InferenceService service_;
  std::atomic<std::uint64_t> numbers_{0};
  std::unique_ptr<TextPool> text_pool_;
  const GenerationShardParts generation_parts_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  bool stopped_ = false;
};

}  // namespace baleen::router
