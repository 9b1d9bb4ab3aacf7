// One client thread: accepts calls and owns them to their end. A server has one or several; they
// share nothing but counters.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "router/cluster/event_loop.h"
#include "router/server/call.h"
#include "router/server/generation/generation_shard.h"

namespace baleen::router {

struct ShardOptions {
  GenerationOptions generation;
  // The longest that a client may take over one message.
  absl::Duration write_wait_max = absl::Seconds(30);
  // Calls at once, with those that are only being refused; more wait to be accepted.
  std::size_t calls_max = 16'384;
  absl::Duration tick = absl::Milliseconds(50);
};

// Borrowed; all outlive the shard.
struct ShardParts {
  const GenerationShardParts& generation;
  InferenceService& service;
};

class Shard {
 public:
  Shard(const ShardOptions& options, const ShardParts& parts,
        std::unique_ptr<grpc::ServerCompletionQueue> queue);
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;
  // Precondition: joined, or never started.
  ~Shard();

  void Start();
  // The server is about to be shut down: ends the thread once all calls are over.
  void Stop();
  // After Stop and the server's shutdown. No call is left then; what others still post is dropped.
  void Join() { thread_.join(); }

 private:
  void Accept(Method method);
  void Tick();

  const ShardOptions options_;
  EventLoop loop_;
  GenerationShard generations_;
  CallContext context_;
  std::thread thread_;

  // On the thread only:
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<Method> not_accepting_;  // there are too many calls
  bool stopping_ = false;
  bool closed_ = false;  // the loop
};

}  // namespace baleen::router
