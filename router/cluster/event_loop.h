// One thread that owns what happens on one gRPC completion queue, and does what other threads post
// to it.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace baleen::router {

// What is handed to gRPC with an operation: called once, on the loop's thread, when that operation
// is done. Must live until then.
class Tag {
 public:
  explicit Tag(absl::AnyInvocable<void(bool ok)> done) : done_(std::move(done)) {}
  Tag(const Tag&) = delete;
  Tag& operator=(const Tag&) = delete;

  void Done(bool ok) { done_(ok); }

 private:
  absl::AnyInvocable<void(bool ok)> done_;
};

class EventLoop {
 public:
  // Registers with a server that is being built; the queue must be closed before the server is
  // destroyed.
  explicit EventLoop(std::unique_ptr<grpc::ServerCompletionQueue> queue);

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }

  // Any thread. Posted work runs in order, soon. Dropped once the loop is closed.
  void Post(absl::AnyInvocable<void()> work);

  // Serves until Close has been called and nothing is outstanding. Calls `tick` about every
  // `period`.
  void Run(absl::Duration period, absl::AnyInvocable<void()> tick);

  // On the loop's thread: no operation is started and no work is taken any more.
  void Close();

 private:
  void TakePosted();

  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  Tag wake_;

  std::mutex mutex_;
  // Guarded by mutex_:
  grpc::Alarm alarm_;
  std::vector<absl::AnyInvocable<void()>> posted_;
  bool waking_ = false;  // the alarm is set and has not been served
  bool closed_ = false;
};

}  // namespace baleen::router
