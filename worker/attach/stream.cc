#include "worker/attach/stream.h"

#include <fmt/format.h>

#include <thread>
#include <utility>

#include "observability/base/log.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "security/grpc/channel_credentials.h"

namespace baleen::worker {
namespace {

// TCP gives a silent peer up after this long: heartbeats keep data on the way, so no pings are
// needed to notice it.
constexpr int kPeerSilenceMs = 10'000;
// gRPC servers take a ping every five minutes from a client whose streams they do not answer; more
// often counts as abuse.
constexpr int kKeepaliveMs = 6 * 60 * 1000;

std::shared_ptr<grpc::Channel> MakeChannel(
    const std::string& address, const std::shared_ptr<security::CertificateStore>& certificates) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(contract::kMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(contract::kMessageBytesMax));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPeerSilenceMs);
  // Each attempt is a connection of its own, paced by our back-off and not also by gRPC's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Routers are cluster neighbours: never through a web proxy of the environment.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(
      address, security::MakeInternalChannelCredentials(certificates, security::Role::kRouter),
      arguments);
}

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::size_t PromptLogprobsIn(const StepReport& report) {
  std::size_t count = 0;
  for (const PromptLogprobsOutput& output : report.prompt_logprobs) count += output.entries.size();
  return count;
}

}  // namespace

Stream::Stream(std::string address, const StreamOptions& options, StreamParts& parts)
    : address_(std::move(address)), options_(options), parts_(parts) {}

absl::Status Stream::Attend() {
  stub_ = v1::Worker::NewStub(MakeChannel(address_, options_.certificates));
  stream_ = stub_->Attach(&context_);
  std::jthread reader;
  if (stream_->Write(wire::HelloMessage(parts_.identity))) {
    reader = std::jthread([this] { ReadAll(); });
    WriteAll();
  }
  if (reader.joinable()) reader.join();
  const absl::Status finished = ToAbsl(stream_->Finish());
  std::unique_lock lock(mutex_);
  closed_ = true;
  outgoing_.clear();
  const LinkId link = link_;
  const absl::Status why = why_.ok() ? finished : why_;
  lock.unlock();
  if (link.value != 0) {
    parts_.metrics.routers_attached.Add(-1);
    // Always taken, see Inbox::Push.
    (void)parts_.inbox.Push(LinkLostCommand{.link = link});
  }
  return why;
}

bool Stream::Deliver(LinkId link, StepReport& report) {
  {
    std::lock_guard lock(mutex_);
    if (link_ != link) return false;
    if (closed_) return true;
    if (outgoing_.size() >= options_.reports_max) {
      AbortLocked(absl::ResourceExhaustedError(
          fmt::format("the router reads too slowly: {} step reports wait for it, the limit",
                      outgoing_.size())));
      return true;
    }
    outgoing_prompt_logprobs_ += PromptLogprobsIn(report);
    if (outgoing_prompt_logprobs_ > options_.prompt_logprobs_max) {
      AbortLocked(absl::ResourceExhaustedError(
          fmt::format("the router reads too slowly: log-probabilities of {} prompt tokens wait for "
                      "it, limit {}",
                      outgoing_prompt_logprobs_, options_.prompt_logprobs_max)));
      return true;
    }
    outgoing_.push_back(std::move(report));
  }
  changed_.notify_all();
  return true;
}

void Stream::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (link_.value == 0) AbortLocked(absl::CancelledError("the worker stops"));
  }
  changed_.notify_all();
}

void Stream::Abort(absl::Status why) {
  std::lock_guard lock(mutex_);
  AbortLocked(std::move(why));
}

void Stream::AbortLocked(absl::Status why) {
  if (why_.ok()) why_ = std::move(why);
  closed_ = true;
  outgoing_.clear();
  context_.TryCancel();
  changed_.notify_all();
}

bool Stream::welcomed() const {
  std::lock_guard lock(mutex_);
  return link_.value != 0;
}

// Writer -----------------------------------------------------------------------------------------

void Stream::WriteAll() {
  if (!AwaitWelcome()) return;
  cache_behind_ = parts_.cache != nullptr;
  StepReport report;
  while (true) {
    switch (AwaitWork(report)) {
      case Next::kReport:
        if (!WriteReport(report) || !WriteCacheEvents()) return;
        break;
      case Next::kCacheEvents:
        if (!WriteCacheEvents()) return;
        break;
      case Next::kHeartbeat:
        if (!stream_->Write(wire::LoadMessage(parts_.load())) || !WriteCacheEvents()) return;
        break;
      case Next::kFlushed:
        Close();
        return;
      case Next::kClosed:
        return;
    }
  }
}

bool Stream::AwaitWelcome() {
  std::unique_lock lock(mutex_);
  const bool answered = changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.welcome_wait),
                                          [this] { return link_.value != 0 || closed_; });
  if (!answered) {
    AbortLocked(absl::DeadlineExceededError(
        fmt::format("no Welcome within {}", absl::FormatDuration(options_.welcome_wait))));
  }
  return link_.value != 0;
}

Stream::Next Stream::AwaitWork(StepReport& report) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoMilliseconds(terms_.heartbeat),
                    [this] { return !outgoing_.empty() || closed_ || stopping_ || cache_behind_; });
  if (closed_) return Next::kClosed;
  if (!outgoing_.empty()) {
    report = std::move(outgoing_.front());
    outgoing_.pop_front();
    outgoing_prompt_logprobs_ -= PromptLogprobsIn(report);
    return Next::kReport;
  }
  if (stopping_) return Next::kFlushed;
  return cache_behind_ ? Next::kCacheEvents : Next::kHeartbeat;
}

// A load without a request goes before the request's end: the router counts on it.
bool Stream::WriteReport(const StepReport& report) {
  for (const PromptLogprobsOutput& output : report.prompt_logprobs) {
    for (const v1::WorkerMessage& message : wire::PromptLogprobsMessages(output)) {
      if (!stream_->Write(message)) return false;
    }
  }
  const bool written = stream_->Write(report.tokens.empty() ? wire::LoadMessage(parts_.load())
                                                            : wire::StepMessage(report));
  if (!written) return false;
  for (const EndedOutput& ended : report.ended) {
    if (!stream_->Write(wire::EndedMessage(ended))) return false;
  }
  return true;
}

// One message at a time, so that the tokens of a step never wait for more than one.
bool Stream::WriteCacheEvents() {
  if (parts_.cache == nullptr) return true;
  const std::optional<CacheChanges> changes = parts_.cache->Read(cache_place_);
  cache_behind_ = changes.has_value();
  if (!changes.has_value()) return true;
  const bool says = changes->cleared || !changes->stored.empty() || !changes->evicted.empty();
  return !says || stream_->Write(wire::CacheMessage(*changes));
}

// Everything is written: the router ends the stream in turn, or is not waited for.
void Stream::Close() {
  stream_->WritesDone();
  std::unique_lock lock(mutex_);
  const bool ended = changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.flush_wait),
                                       [this] { return closed_; });
  if (!ended) AbortLocked(absl::CancelledError("the worker stops"));
}

// Reader -----------------------------------------------------------------------------------------

void Stream::ReadAll() {
  v1::RouterMessage message;
  while (stream_->Read(&message) && Handle(message)) {
  }
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

// False ends the stream.
bool Stream::Handle(v1::RouterMessage& message) {
  if (!welcomed() || message.has_welcome()) return HandleWelcome(message.welcome());
  switch (message.body_case()) {
    case v1::RouterMessage::kStart:
      HandleStart(*message.mutable_start());
      return true;
    case v1::RouterMessage::kCancel:
      return HandleControl(message.cancel().key(),
                           CancelCommand{.key = wire::KeyOf(message.cancel().key())});
    case v1::RouterMessage::kRelease:
      return HandleControl(message.release().key(),
                           ReleaseCommand{.key = wire::KeyOf(message.release().key())});
    case v1::RouterMessage::kDrain:
      (void)parts_.inbox.Push(DrainCommand{});  // always taken
      return true;
    default:
      // Of a newer protocol, perhaps. It names no request, so nobody waits for an answer.
      log::Debug("unknown frame dropped", {{"router", address_}});
      return true;
  }
}

bool Stream::HandleWelcome(const v1::Welcome& welcome) {
  const absl::StatusOr<wire::WelcomeTerms> terms = wire::ToTerms(welcome);
  {
    std::lock_guard lock(mutex_);
    if (link_.value != 0 || !terms.ok()) {
      AbortLocked(link_.value != 0 ? absl::FailedPreconditionError("a second Welcome")
                                   : terms.status());
      return false;
    }
    terms_ = *terms;
    link_ = {.value = parts_.links.fetch_add(1) + 1};
  }
  parts_.metrics.routers_attached.Add(1);
  changed_.notify_all();
  log::Info("attached", {{"router", address_}});
  return true;
}

void Stream::HandleStart(v1::Start& start) {
  // terms_ and link_ are only written by this thread.
  const contract::RequestKey key = wire::KeyOf(start.key());
  absl::Status refusal;
  if (key.id.router != terms_.router) {
    parts_.metrics.stale_frames_total.Add();
    refusal = contract::MakeStatus(contract::Reason::kInvalidRequest,
                                   "the request's key is not of this router");
  } else if (absl::StatusOr<StartCommand> command = wire::ToStart(start, link_); !command.ok()) {
    refusal = command.status();
  } else {
    refusal = parts_.inbox.Push(*std::move(command));
  }
  if (refusal.ok()) return;
  StepReport report;
  report.ended.push_back({.key = key, .reason = EndReason::kError, .status = std::move(refusal)});
  Deliver(link_, report);
}

bool Stream::HandleControl(const v1::RequestKey& key, Command command) {
  if (key.router() != terms_.router) {
    parts_.metrics.stale_frames_total.Add();
    return true;
  }
  const absl::Status taken = parts_.inbox.Push(std::move(command));
  // A cancel must not get lost; without the stream its request ends all the same.
  if (!taken.ok()) Abort(taken);
  return taken.ok();
}

}  // namespace baleen::worker
