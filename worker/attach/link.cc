#include "worker/attach/link.h"

#include <utility>

#include "observability/base/log.h"
#include "proto/contract/ids.h"

namespace baleen::worker {
namespace {

// In [0, 1).
double RandomShare() { return static_cast<double>(contract::RandomNonZero() >> 11) * 0x1p-53; }

}  // namespace

Link::Link(std::string address, const LinkOptions& options, StreamParts& parts)
    : address_(std::move(address)), options_(options), parts_(parts) {
  thread_ = std::thread([this] { Run(); });
}

Link::~Link() {
  Stop();
  {
    std::unique_lock lock(mutex_);
    // Twice: the flush, and the router's answer to it.
    changed_.wait_for(lock, absl::ToChronoMilliseconds(2 * options_.stream.flush_wait),
                      [this] { return stopped_; });
    if (stream_ != nullptr) stream_->Abort(absl::CancelledError("the worker stops"));
  }
  thread_.join();
}

void Link::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->Stop();
  }
  changed_.notify_all();
}

bool Link::Retire() {
  bool stopped = false;
  {
    std::lock_guard lock(mutex_);
    retired_ = true;
    stopped = stopped_;
  }
  changed_.notify_all();
  return stopped;
}

bool Link::Resume() {
  std::lock_guard lock(mutex_);
  if (stopped_) return false;
  retired_ = false;
  return true;
}

bool Link::Deliver(LinkId link, StepReport& report) {
  std::shared_ptr<Stream> stream;
  {
    std::lock_guard lock(mutex_);
    stream = stream_;
  }
  return stream != nullptr && stream->Deliver(link, report);
}

void Link::Run() {
  Backoff backoff(options_.backoff);
  do {
    if (AttendOnce()) backoff.Reset();
  } while (Pause(backoff.Next(RandomShare())));
}

// One stream from dialling to its end. True when the router had taken this worker.
bool Link::AttendOnce() {
  const auto stream = std::make_shared<Stream>(address_, options_.stream, parts_);
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || retired_) return false;
    stream_ = stream;
  }
  const absl::Status status = stream->Attend();
  {
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
  }
  Report(status, stream->welcomed());
  return stream->welcomed();
}

// A line when something changes, not one for each attempt.
void Link::Report(const absl::Status& status, bool was_attached) {
  const std::string what = status.ok() ? "the router ended the stream" : status.ToString();
  if (was_attached) {
    log::Warning("detached", {{"router", address_}, {"status", what}});
  } else if (what != last_failure_) {
    log::Warning("cannot attach, will try again", {{"router", address_}, {"status", what}});
  }
  last_failure_ = was_attached ? std::string() : what;
}

// False when the link ends.
bool Link::Pause(absl::Duration wait) {
  {
    std::unique_lock lock(mutex_);
    stopped_ = changed_.wait_for(lock, absl::ToChronoMicroseconds(wait),
                                 [this] { return stopping_ || retired_; });
    if (!stopped_) return true;
  }
  changed_.notify_all();
  return false;
}

}  // namespace baleen::worker
