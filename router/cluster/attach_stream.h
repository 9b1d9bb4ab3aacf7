// One Attach call, from the moment it is waited for to its end. Belongs to the thread of its
// AttachServer.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "proto/baleen/v1/worker.grpc.pb.h"
#include "router/cluster/event_loop.h"
#include "router/cluster/registry.h"
#include "router/cluster/wire.h"
#include "router/dispatch/dispatcher.h"
#include "router/dispatch/links.h"

namespace baleen::router {

// What all streams share. Borrowed; outlives them.
struct AttachContext {
  v1::Worker::AsyncService& service;
  grpc::ServerCompletionQueue* queue;
  Registry& registry;
  Dispatcher& dispatcher;
  const Clock& clock;
  WelcomeFrame welcome;
  std::size_t send_queue_bytes_max;
  absl::Duration hello_wait_max;    // from the call to its Hello
  absl::Duration closing_wait_max;  // for the worker to take the last status
  std::function<void()> on_called;  // a worker has called: wait for the next one
  std::function<void()> on_stale;   // a frame came after its worker was lost
};

class AttachStream final : public WorkerLink {
 public:
  // Waits for a call.
  explicit AttachStream(const AttachContext& context);

  // WorkerLink.
  void Send(RouterFrame frame) override;
  void Close(absl::Status why) override;

  // Ends what has waited too long.
  void Tick();

  // No operation is outstanding and none will be started: may be destroyed.
  bool over() const { return operations_ == 0 && phase_ == Phase::kOver; }

 private:
  enum class Phase : std::uint8_t { kWaiting, kHello, kAttached, kClosing, kOver };

  void OnCall(bool ok);
  void OnRead(bool ok);
  void OnWritten(bool ok);
  void OnFinished();

  void Read();
  void TakeHello();
  absl::Status TakeFrame();
  void Enqueue(v1::RouterMessage message);
  void WriteNext();
  void FinishIfIdle();

  const AttachContext& context_;
  grpc::ServerContext call_;
  grpc::ServerAsyncReaderWriter<v1::RouterMessage, v1::WorkerMessage> stream_;
  Tag called_;
  Tag read_;
  Tag written_;
  Tag finished_;

  Phase phase_ = Phase::kWaiting;
  int operations_ = 0;
  absl::Duration until_;  // of kHello and kClosing
  v1::WorkerMessage incoming_;
  std::optional<WorkerId> worker_;
  std::shared_ptr<const WorkerInfo> info_;
  std::deque<v1::RouterMessage> outgoing_;  // the first is being written
  std::size_t outgoing_bytes_ = 0;
  bool overfull_ = false;  // a frame found no room: it and those after it are dropped
  bool writing_ = false;
  bool finishing_ = false;
  absl::Status close_status_;
};

}  // namespace baleen::router
