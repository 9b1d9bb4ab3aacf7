// One client thread: accepts calls and owns them to their end. A server has one or several; they
// share nothing but counters.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "router/cluster/event_loop.h"
#include "router/server/call.h"
#include "router/server/reply_inbox.h"

namespace baleen::router {

struct ShardOptions {
  absl::Duration request_wait_max = absl::Hours(1);
  absl::Duration finish_wait_max = absl::Seconds(30);
  // Calls at once, with those that are only being refused; more wait to be accepted.
  std::size_t calls_max = 16'384;
  // Tokens that may wait for this thread; a million take it a few seconds.
  std::size_t inbox_tokens_max = 1'000'000;
  absl::Duration tick = absl::Milliseconds(50);
};

// Borrowed; all outlive the shard.
struct ShardParts {
  const ServerParts& server;
  InferenceService& service;
  TextPool& text_pool;
  std::atomic<std::uint64_t>& calls;  // counts the calls of all shards
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
  void TakeReplies();
  void Tick();

  const ShardOptions options_;
  EventLoop loop_;
  ReplyInbox inbox_;
  CallContext context_;
  std::thread thread_;

  // On the thread only:
  std::unordered_map<std::uint64_t, std::unique_ptr<Call>> calls_;  // by number
  std::vector<Method> not_accepting_;                               // there are too many calls
  bool stopping_ = false;
  bool closed_ = false;  // the loop
};

}  // namespace baleen::router
