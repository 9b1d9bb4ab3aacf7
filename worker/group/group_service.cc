#include "worker/group/group_service.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/baleen/v1/group.grpc.pb.h"
#include "security/grpc/server_credentials.h"
#include "worker/group/wire.h"

namespace baleen::worker {
namespace {

// For streams to take their last status when the leader stops.
constexpr std::chrono::milliseconds kStopWait{200};
// Members ping every 5 s.
constexpr int kPingReceivedEveryMs = 1000;
// Messages that wait for one member. In order there are at most a handful: the leader waits for
// answers.
constexpr std::size_t kOutgoingMax = 64;
// Calls beside the members': those that are refused, or are replaced by others.
constexpr std::size_t kExtraStreamsMax = 64;

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

bool IsUnix(std::string_view address) {
  return address.starts_with("unix:") || address.starts_with("unix-abstract:");
}

void LimitServer(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(kMemberMessageBytesMax));
  builder.SetMaxSendMessageSize(static_cast<int>(kLeaderMessageBytesMax));
  // A small message could unpack to a large one.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kPingReceivedEveryMs);
}

}  // namespace

// Roster and streams under one lock. gRPC calls none of our methods from within its own, so they
// are called with the lock held.
class GroupService::Edge final : public v1::Group::CallbackService {
 public:
  explicit Edge(GroupServiceOptions options)
      : options_(std::move(options)),
        roster_(options_.roster, options_.shape, options_.layers, options_.clock->Monotonic()) {}

  ~Edge() override {
    ticker_.request_stop();
    if (ticker_.joinable()) ticker_.join();
    if (server_ == nullptr) return;
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      CloseAll(absl::UnavailableError("the leader stops"));
    }
    server_->Shutdown(std::chrono::system_clock::now() + kStopWait);
    std::unique_lock lock(mutex_);
    // gRPC has cancelled what was left, which ends every stream.
    changed_.wait(lock, [this] { return streams_.empty(); });
  }

  // What to dial.
  absl::StatusOr<std::string> Listen() {
    const std::string& listen = options_.listen;
    const std::size_t colon = listen.rfind(':');
    if (colon == std::string::npos || colon == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "group leader's address '{}' is neither host:port nor unix-abstract:name", listen));
    }
    BALEEN_ASSIGN_OR_RETURN(const auto credentials, security::MakeServerCredentials(
                                                        {.port = security::Port::kGroupLeader,
                                                         .certificates = options_.certificates}));
    grpc::ServerBuilder builder;
    LimitServer(builder);
    builder.RegisterService(this);
    int port = 0;
    builder.AddListeningPort(listen, credentials, &port);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::AlreadyExistsError(fmt::format(
          "cannot listen for the group on {}: the address is in use or not allowed", listen));
    }
    ticker_ = std::jthread([this](const std::stop_token& stop) { TickAll(stop); });
    return IsUnix(listen) ? listen : fmt::format("{}:{}", listen.substr(0, colon), port);
  }

  GroupView View() {
    const std::lock_guard lock(mutex_);
    return roster_.View();
  }

 private:
  class Stream;

  grpc::ServerBidiReactor<v1::MemberMessage, v1::LeaderMessage>* Join(
      grpc::CallbackServerContext* call) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* call,
                                     const v1::DescribeGroupRequest* request,
                                     v1::GroupDescription* reply) override;
  grpc::ServerUnaryReactor* Place(grpc::CallbackServerContext* call,
                                  const v1::PlaceExpertsRequest* request,
                                  v1::PlaceExpertsReply* reply) override;

  void TickAll(const std::stop_token& stop);
  void Hear(Stream& stream, v1::MemberMessage& message);
  void Apply();
  void CloseAll(const absl::Status& why);
  void Forget(MemberStreamId id);
  std::shared_ptr<const v1::LeaderMessage> Encoded(
      const std::shared_ptr<const LeaderMessage>& message);

  const GroupServiceOptions options_;
  std::unique_ptr<grpc::Server> server_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  // Guarded by mutex_:
  Roster roster_;
  std::map<MemberStreamId, std::unique_ptr<Stream>> streams_;
  std::uint64_t last_stream_ = 0;
  bool stopping_ = false;
  // The last message, which is often for several members.
  std::shared_ptr<const LeaderMessage> encoded_from_;
  std::shared_ptr<const v1::LeaderMessage> encoded_;

  std::jthread ticker_;
};

// One Join call. All public methods with the edge's lock held.
class GroupService::Edge::Stream final
    : public grpc::ServerBidiReactor<v1::MemberMessage, v1::LeaderMessage> {
 public:
  Stream(Edge& edge, grpc::CallbackServerContext& call, MemberStreamId id, absl::Duration now)
      : edge_(edge), call_(call), id_(id), until_(now + edge.options_.hello_wait_max) {}

  MemberStreamId id() const { return id_; }

  void Read() {
    if (!closing_) StartRead(&incoming_);
  }

  void Send(std::shared_ptr<const v1::LeaderMessage> message) {
    if (closing_ || overfull_) return;
    // It says nothing that the message on its way does not say.
    if (message->has_heartbeat() && !outgoing_.empty()) return;
    overfull_ = outgoing_.size() == kOutgoingMax;
    if (overfull_) return;  // Tick ends the stream
    welcomed_ = true;
    outgoing_.push_back(std::move(message));
    if (outgoing_.size() == 1) StartWrite(outgoing_.front().get());
  }

  // What waits is dropped: the end of the stream says all that matters.
  void Close(const absl::Status& why, absl::Duration now) {
    if (closing_) return;
    closing_ = true;
    status_ = why;
    until_ = now + edge_.options_.closing_wait_max;
    if (outgoing_.size() > 1) outgoing_.resize(1);
    if (outgoing_.empty()) Finish(ToGrpc(status_));
  }

  void Tick(absl::Duration now) {
    if (closing_) {
      if (now > until_) call_.TryCancel();
    } else if (!welcomed_ && now > until_) {
      Close(absl::UnavailableError(fmt::format(
                "no Hello within {}", absl::FormatDuration(edge_.options_.hello_wait_max))),
            now);
    } else if (overfull_) {
      edge_.roster_.Leave(id_, "it does not take its messages", now);
      Close(absl::ResourceExhaustedError(
                fmt::format("{} messages wait for the member, the limit", kOutgoingMax)),
            now);
    }
  }

 private:
  void OnReadDone(bool ok) override {
    const std::lock_guard lock(edge_.mutex_);
    if (closing_) return;
    if (ok) {
      edge_.Hear(*this, incoming_);
      Read();
      return;
    }
    const absl::Duration now = edge_.options_.clock->Monotonic();
    edge_.roster_.Leave(id_, "its stream ended", now);
    Close(absl::OkStatus(), now);
    edge_.Apply();
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard lock(edge_.mutex_);
    outgoing_.pop_front();
    if (closing_) {
      Finish(ToGrpc(status_));
    } else if (ok && !outgoing_.empty()) {
      StartWrite(outgoing_.front().get());
    }
    // Not ok: the call is dead, and the read that is outstanding says so.
  }

  void OnDone() override { edge_.Forget(id_); }

  Edge& edge_;
  grpc::CallbackServerContext& call_;
  const MemberStreamId id_;
  // The rest guarded by the edge's lock.
  v1::MemberMessage incoming_;
  std::deque<std::shared_ptr<const v1::LeaderMessage>> outgoing_;  // the first is being written
  bool welcomed_ = false;
  bool overfull_ = false;
  bool closing_ = false;
  absl::Status status_;
  absl::Duration until_;  // for Hello, then of closing
};

grpc::ServerBidiReactor<v1::MemberMessage, v1::LeaderMessage>* GroupService::Edge::Join(
    grpc::CallbackServerContext* call) {
  const absl::Duration now = options_.clock->Monotonic();
  const std::lock_guard lock(mutex_);
  const MemberStreamId id{++last_stream_};
  Stream& stream =
      *streams_.emplace(id, std::make_unique<Stream>(*this, *call, id, now)).first->second;
  const std::size_t streams_max = options_.roster.terms.ranks + kExtraStreamsMax;
  if (stopping_) {
    stream.Close(absl::UnavailableError("the leader stops"), now);
  } else if (streams_.size() > streams_max) {
    stream.Close(absl::ResourceExhaustedError(
                     fmt::format("{} streams at the leader, the limit", streams_max)),
                 now);
  }
  stream.Read();
  return &stream;
}

grpc::ServerUnaryReactor* GroupService::Edge::Describe(grpc::CallbackServerContext* call,
                                                       const v1::DescribeGroupRequest*,
                                                       v1::GroupDescription* reply) {
  *reply = wire::ToWire(View());
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* GroupService::Edge::Place(grpc::CallbackServerContext* call,
                                                    const v1::PlaceExpertsRequest* request,
                                                    v1::PlaceExpertsReply* reply) {
  absl::StatusOr<std::uint64_t> version = absl::UnavailableError("the leader stops");
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) version = roster_.Place(wire::FromWire(*request));
    Apply();
  }
  if (version.ok()) reply->set_placement_version(*version);
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  reactor->Finish(ToGrpc(version.status()));
  return reactor;
}

void GroupService::Edge::TickAll(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const absl::Duration now = options_.clock->Monotonic();
    roster_.Tick(now);
    for (auto& [id, stream] : streams_) stream->Tick(now);
    Apply();
    changed_.wait_for(lock, stop, absl::ToChronoMilliseconds(options_.tick), [] { return false; });
  }
}

void GroupService::Edge::Hear(Stream& stream, v1::MemberMessage& wire) {
  const absl::Duration now = options_.clock->Monotonic();
  const absl::StatusOr<MemberMessage> message = wire::FromWire(wire);
  absl::Status heard = message.status();
  if (message.ok()) {
    heard = roster_.Hear(stream.id(), *message, now);
  } else {
    roster_.Leave(stream.id(), fmt::format("it broke the rules: {}", heard.ToString()), now);
  }
  if (!heard.ok()) stream.Close(heard, now);
  Apply();
}

void GroupService::Edge::Apply() {
  const absl::Duration now = options_.clock->Monotonic();
  for (RosterOutput& output : roster_.Take()) {
    const auto it = streams_.find(output.stream);
    if (it == streams_.end()) continue;
    if (const auto* why = std::get_if<absl::Status>(&output.what)) {
      it->second->Close(*why, now);
    } else {
      it->second->Send(Encoded(std::get<std::shared_ptr<const LeaderMessage>>(output.what)));
    }
  }
  encoded_from_.reset();
  encoded_.reset();
}

std::shared_ptr<const v1::LeaderMessage> GroupService::Edge::Encoded(
    const std::shared_ptr<const LeaderMessage>& message) {
  if (encoded_from_ != message) {
    encoded_from_ = message;
    encoded_ = std::make_shared<const v1::LeaderMessage>(wire::ToWire(*message));
  }
  return encoded_;
}

void GroupService::Edge::CloseAll(const absl::Status& why) {
  const absl::Duration now = options_.clock->Monotonic();
  for (auto& [id, stream] : streams_) stream->Close(why, now);
}

void GroupService::Edge::Forget(MemberStreamId id) {
  std::unique_ptr<Stream> stream;  // destroyed after the lock
  const std::lock_guard lock(mutex_);
  const auto it = streams_.find(id);
  stream = std::move(it->second);
  streams_.erase(it);
  changed_.notify_all();
}

// The service -----------------------------------------------------------------------------------

GroupService::GroupService(std::unique_ptr<Edge> edge, std::string address)
    : edge_(std::move(edge)), address_(std::move(address)) {}

GroupService::~GroupService() = default;

absl::StatusOr<std::unique_ptr<GroupService>> GroupService::Start(GroupServiceOptions options) {
  BALEEN_RETURN_IF_ERROR(CheckGroupTerms(options.roster.terms));
  BALEEN_RETURN_IF_ERROR(CheckGroupPlacement({.shape = options.shape, .layers = options.layers}));
  if (static_cast<std::uint32_t>(options.shape.ranks) != options.roster.terms.ranks) {
    return absl::InvalidArgumentError(
        fmt::format("group {}: the placement is for {} ranks, the group has {}",
                    options.roster.terms.group, options.shape.ranks, options.roster.terms.ranks));
  }
  auto edge = std::make_unique<Edge>(std::move(options));
  BALEEN_ASSIGN_OR_RETURN(std::string address, edge->Listen());
  return std::unique_ptr<GroupService>(new GroupService(std::move(edge), std::move(address)));
}

GroupView GroupService::View() const { return edge_->View(); }

}  // namespace baleen::worker
