// A router as a worker sees it, with the script in the test's hands.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "proto/baleen/v1/worker.grpc.pb.h"

namespace baleen::worker {

// How it meets a worker that attaches.
struct FakeRouterOptions {
  std::string listen = "127.0.0.1:0";
  std::uint64_t number = 7;
  std::uint32_t heartbeat_ms =
      5000;  // longer than a test wants to wait: heartbeats come when a test asks for them
  bool welcomes = true;
  bool reads = true;                    // after Hello
  std::optional<grpc::Status> refusal;  // ends the stream after Hello
};

class FakeRouter final : private v1::Worker::Service {
 public:
  using Stream = grpc::ServerReaderWriter<v1::RouterMessage, v1::WorkerMessage>;

  explicit FakeRouter(const FakeRouterOptions& options = {});
  ~FakeRouter() override;

  const std::string& address() const { return address_; }

  // Wait until so many workers have attached since the start / one is attached now.
  void AwaitHellos(std::size_t count);
  // The first message of that kind that has not been taken yet; waits for it.
  v1::WorkerMessage Await(v1::WorkerMessage::BodyCase kind);
  // The first message of any kind but Hello; waits for it.
  v1::WorkerMessage AwaitNext();
  // On the current stream.
  void Send(const v1::RouterMessage& message);
  // Ends the current stream from this side.
  void EndStream();

  v1::Hello hello();
  std::size_t hellos();

 private:
  grpc::Status Attach(grpc::ServerContext* context, Stream* stream) override;
  void Wait(const std::function<bool()>& condition, const char* what);
  v1::WorkerMessage AwaitWhere(const std::function<bool(const v1::WorkerMessage&)>& wanted);

  const FakeRouterOptions options_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::vector<v1::WorkerMessage> heard_;
  v1::Hello hello_;
  std::size_t hellos_ = 0;
  Stream* stream_ = nullptr;
  grpc::ServerContext* context_ = nullptr;
  bool stopping_ = false;
};

}  // namespace baleen::worker
