// One Attach stream to one router, from dialling to its end.
//
// Two threads: the caller of Attend writes, a second one reads. Tokens come from the engine's
// thread through Deliver into a bounded queue; a router that reads too slowly for it loses the
// stream, and with it its requests here, rather than this process its memory.
#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "observability/metrics/metrics.h"
#include "proto/baleen/v1/worker.grpc.pb.h"
#include "security/certificates/certificate_store.h"
#include "worker/attach/wire.h"
#include "worker/cache/cache_feed.h"
#include "worker/engine/inbox.h"
#include "worker/engine/messages.h"

namespace baleen::worker {

struct StreamOptions {
  std::shared_ptr<security::CertificateStore> certificates;  // of the inside; null: plaintext
  // Step reports that wait for a slow router: at 20 ms a step, some 20 s; of 64 tokens each, some
  // 13 MB.
  std::size_t reports_max = 1024;
  // Prompt tokens whose log-probabilities wait in them: some 50 MB with 20 others each. More than
  // the longest prompt has, so that only a slow router can lose its stream over one.
  std::size_t prompt_logprobs_max = std::size_t{1} << 18;
  absl::Duration welcome_wait = absl::Seconds(5);  // from Hello to Welcome
  absl::Duration flush_wait = absl::Seconds(1);    // for the last words, at Stop
};

// What streams share; all of it outlives them.
struct StreamParts {
  WorkerIdentity identity;
  Inbox& inbox;
  std::function<LoadReport()> load;  // any thread
  metrics::WorkerMetrics metrics;
  const CacheFeed* cache = nullptr;     // null: nothing is cached, and nothing said of it
  std::atomic<std::uint64_t> links{0};  // the last LinkId given out
};

class Stream {
 public:
  Stream(std::string address, const StreamOptions& options, StreamParts& parts);

  // Dials, says Hello, and attends the router until the stream ends for any reason, which is the
  // returned status (OK: it ended in order). When it returns the engine has been told that the link
  // is lost. Call once.
  absl::Status Attend();

  // Any thread; never blocks. False when `link` is not this stream; reports for a stream that has
  // just ended are dropped.
  bool Deliver(LinkId link, StepReport& report);

  // Any thread: write what waits, then end the stream. Before Welcome nothing waits, and it ends
  // now.
  void Stop();
  // Any thread: end the stream now.
  void Abort(absl::Status why);

  // Whether the router took this worker. Any thread.
  bool welcomed() const;

 private:
  enum class Next : std::uint8_t { kReport, kCacheEvents, kHeartbeat, kFlushed, kClosed };

  void WriteAll();
  bool AwaitWelcome();
  Next AwaitWork(StepReport& report);
  bool WriteReport(const StepReport& report);
  bool WriteCacheEvents();
  void Close();

  void ReadAll();
  bool Handle(v1::RouterMessage& message);
  bool HandleWelcome(const v1::Welcome& welcome);
  void HandleStart(v1::Start& start);
  bool HandleControl(const v1::RequestKey& key, Command command);
  void AbortLocked(absl::Status why);

  const std::string address_;
  const StreamOptions options_;
  StreamParts& parts_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Worker::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerMessage, v1::RouterMessage>> stream_;
  // The writer's: what the router knows of the cache, and whether there may be more to say at once.
  CacheFeed::Place cache_place_;
  bool cache_behind_ = false;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  LinkId link_;  // 0 until Welcome
  wire::WelcomeTerms terms_;
  std::deque<StepReport> outgoing_;
  std::size_t outgoing_prompt_logprobs_ = 0;
  bool closed_ = false;    // nothing can be written any more
  bool stopping_ = false;  // Stop was called
  absl::Status why_;       // why this side ended the stream, if it did
};

}  // namespace baleen::worker
