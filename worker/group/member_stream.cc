#include "worker/group/member_stream.h"

#include <fmt/format.h>

#include <thread>
#include <utility>

#include "observability/base/clock.h"
#include "observability/base/log.h"
#include "security/grpc/channel_credentials.h"
#include "worker/group/wire.h"

namespace baleen::worker {
namespace {

// One attempt to connect; gRPC's own limit, 20 s, would keep a rank away from a leader that has
// come back at another address.
constexpr int kConnectMs = 2000;
// Pings notice a leader that is stopped while a write waits for it; all else does the silence
// limit.
constexpr int kPingEveryMs = 5000;
constexpr int kPingAnswerMs = 5000;

std::shared_ptr<grpc::Channel> MakeChannel(const MemberStreamOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kLeaderMessageBytesMax));
  arguments.SetMaxSendMessageSize(static_cast<int>(kMemberMessageBytesMax));
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kConnectMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kPingEveryMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingAnswerMs);
  // Each attempt is a connection of its own, paced by our back-off and not also by gRPC's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // The leader is a cluster neighbour: never through a web proxy of the environment.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(
      options.leader,
      security::MakeInternalChannelCredentials(options.certificates, security::Role::kWorker),
      arguments);
}

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

std::int64_t NowNs() { return absl::ToInt64Nanoseconds(SystemClock().Monotonic()); }

// What the leader says to a member that it will not take the next time either.
bool IsFinal(const absl::Status& status) {
  return status.code() == absl::StatusCode::kFailedPrecondition ||
         status.code() == absl::StatusCode::kInvalidArgument ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

}  // namespace

MemberStream::MemberStream(const MemberStreamOptions& options, MemberMailbox& mailbox)
    : options_(options), mailbox_(mailbox) {}

MemberStream::Ending MemberStream::Attend(const HelloMessage& hello) {
  mailbox_.BeginStream();
  stub_ = v1::Group::NewStub(MakeChannel(options_));
  stream_ = stub_->Join(&context_);
  std::jthread reader;
  if (Write(hello)) {
    reader = std::jthread([this] { ReadAll(); });
    WriteAll();
  }
  if (reader.joinable()) reader.join();
  const absl::Status finished = ToAbsl(stream_->Finish());
  Ending ending{.why = finished, .refused = IsFinal(finished)};
  {
    const std::lock_guard lock(mutex_);
    if (!why_.ok()) ending = {.why = why_, .refused = unfit_};
  }
  mailbox_.EndStream(ending.why.ok() ? absl::UnavailableError("it ended the stream") : ending.why);
  return ending;
}

void MemberStream::Abort(absl::Status why) {
  const std::lock_guard lock(mutex_);
  if (why_.ok()) why_ = std::move(why);
  context_.TryCancel();
}

// Writer ----------------------------------------------------------------------------------------

bool MemberStream::Write(const MemberMessage& message) {
  return stream_->Write(wire::ToWire(message));
}

void MemberStream::WriteAll() {
  if (!mailbox_.AwaitWelcome(options_.welcome_wait)) {
    if (!mailbox_.stream_over()) {
      Abort(absl::DeadlineExceededError(
          fmt::format("no Welcome within {}", absl::FormatDuration(options_.welcome_wait))));
    }
    return;
  }
  const Clock& clock = SystemClock();
  absl::Duration counts_at = clock.Monotonic() + options_.counts_every;
  while (!LeaderIsSilent()) {
    const std::optional<MemberMessage> said = mailbox_.AwaitSaid(heartbeat_);
    if (mailbox_.stream_over()) return;
    if (!Write(said.value_or(MemberHeartbeat{}))) return;
    if (clock.Monotonic() < counts_at) continue;
    counts_at = clock.Monotonic() + options_.counts_every;
    const std::optional<CountsMessage> counts = mailbox_.TakeCounts();
    if (counts.has_value() && !Write(*counts)) return;
  }
}

bool MemberStream::LeaderIsSilent() {
  const absl::Duration silence = absl::Nanoseconds(NowNs() - heard_at_ns_.load());
  if (silence <= silence_max_) return false;
  Abort(absl::UnavailableError(
      fmt::format("it was silent for {}", absl::FormatDuration(silence_max_))));
  return true;
}

// Reader ----------------------------------------------------------------------------------------

void MemberStream::ReadAll() {
  v1::LeaderMessage wire;
  while (stream_->Read(&wire)) {
    heard_at_ns_ = NowNs();
    absl::StatusOr<LeaderMessage> message = wire::FromWire(wire);
    absl::Status taken = message.status();
    if (message.ok()) {
      if (const auto* welcome = std::get_if<WelcomeMessage>(&*message)) {
        heartbeat_ = welcome->heartbeat;
        silence_max_ = welcome->silence_max;
      }
      taken = mailbox_.Take(*std::move(message));
    }
    if (taken.ok()) continue;
    {
      const std::lock_guard lock(mutex_);
      unfit_ = why_.ok() && taken.code() == absl::StatusCode::kFailedPrecondition;
    }
    Abort(std::move(taken));
    break;
  }
  // Wakes the writer.
  mailbox_.EndStream([this] {
    const std::lock_guard lock(mutex_);
    return why_.ok() ? absl::UnavailableError("its stream ended") : why_;
  }());
}

}  // namespace baleen::worker
