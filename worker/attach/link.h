// Keeps one router attached: dials it, attends it, and dials again, for as long as the link lives.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "worker/attach/backoff.h"
#include "worker/attach/stream.h"

namespace baleen::worker {

struct LinkOptions {
  StreamOptions stream;
  BackoffOptions backoff;
};

class Link {
 public:
  // Dials from a thread of its own. `parts` outlives the link.
  Link(std::string address, const LinkOptions& options, StreamParts& parts);
  // Stops and waits, bounded by the stream's flush_wait.
  ~Link();

  // Ends the stream after its last words and dials no more. Does not wait.
  void Stop();

  // Dials no more; a stream that there is lives on until it ends. True once it has ended: then the
  // destructor waits for nothing.
  bool Retire();
  // Dials again after Retire. False when the link has ended.
  bool Resume();

  // Any thread; never blocks. False when `link` is not the current stream's.
  bool Deliver(LinkId link, StepReport& report);

 private:
  void Run();
  bool AttendOnce();
  void Report(const absl::Status& status, bool was_attached);
  bool Pause(absl::Duration wait);

  const std::string address_;
  const LinkOptions options_;
  StreamParts& parts_;
  std::string last_failure_;  // as logged; the link's thread only

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_:
  std::shared_ptr<Stream> stream_;  // shared for the length of one call with those that deliver
  bool stopping_ = false;
  bool retired_ = false;
  bool stopped_ = false;  // the thread has nothing left to do

  std::thread thread_;
};

}  // namespace baleen::worker
