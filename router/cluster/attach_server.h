// The router's side of the workers: the Attach service on its own port, and the thread on which
// registry and dispatcher live.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "observability/base/clock.h"
#include "observability/metrics/metrics.h"
#include "proto/baleen/v1/worker.grpc.pb.h"
#include "proto/contract/limits.h"
#include "router/cluster/attach_stream.h"
#include "router/cluster/event_loop.h"
#include "router/cluster/registry.h"
#include "router/dispatch/dispatcher.h"
#include "router/dispatch/links.h"
#include "security/certificates/certificate_store.h"

namespace baleen::router {

struct AttachServerOptions {
  std::string listen = "127.0.0.1:0";
  // Of the cluster's inside, with an authority: workers need one of its certificates. Null:
  // plaintext.
  std::shared_ptr<security::CertificateStore> certificates;
  std::uint32_t heartbeat_ms = contract::kHeartbeatMs;
  std::uint32_t lease_ms = contract::kLeaseMs;
  // Streams at once, with those that have said no Hello yet; more wait to be accepted.
  std::size_t streams_max = 8192;
  // Frames that wait for one worker; a full prompt takes about 400 kB.
  std::size_t send_queue_bytes_max = std::size_t{64} << 20;
  absl::Duration hello_wait_max = absl::Seconds(5);
  absl::Duration closing_wait_max = absl::Seconds(2);
  // Of leases, deadlines and gauges.
  absl::Duration tick = absl::Milliseconds(20);
};

// Borrowed; all outlive the server. Registry and dispatcher are used on the server's thread only
// while it runs.
struct AttachServerParts {
  std::uint64_t router = 0;  // this router's random number
  const Clock& clock;
  Registry& registry;
  Dispatcher& dispatcher;
  metrics::RouterMetrics& metrics;
  // Called at each tick, on the server's thread; null: nothing.
  std::function<void()> on_tick;
};

class AttachServer final : public RequestPort {
 public:
  // Listens and serves. INVALID_ARGUMENT or ALREADY_EXISTS names the address, or what is wrong with
  // our certificate.
  static absl::StatusOr<std::unique_ptr<AttachServer>> Start(const AttachServerOptions& options,
                                                             const AttachServerParts& parts);
  // Closes all streams. What still runs is ended by EndAll before.
  ~AttachServer() override;

  const std::string& address() const { return address_; }

  // RequestPort.
  void Submit(Request request) override;
  void Cancel(contract::RequestId id) override;

  // Any thread: ends all requests with `status`, and all that are submitted from now on.
  void EndAll(absl::Status status);

 private:
  AttachServer(const AttachServerOptions& options, const AttachServerParts& parts,
               grpc::ServerBuilder& builder);

  void Accept();
  void Tick();
  void ExportMetrics();

  AttachServerParts parts_;
  v1::Worker::AsyncService service_;
  EventLoop loop_;
  AttachContext context_;
  const std::size_t streams_max_;
  const absl::Duration tick_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
  std::thread thread_;

  // On the thread only:
  std::list<AttachStream> streams_;
  bool accepting_ = true;
  bool stopping_ = false;
  bool closed_ = false;
  double waiting_exported_ = 0;
  std::uint64_t stale_frames_ = 0;           // seen by streams
  std::uint64_t stale_frames_exported_ = 0;  // of streams and dispatcher
};

}  // namespace baleen::router
