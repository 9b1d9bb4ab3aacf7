// What an endpoint knows of its peers: memory, messages, and how to wait for them. The phases of a
// step are in ucx_endpoint.cc.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/expert_parallel/ucx/shared_memory.h"
#include "worker/expert_parallel/ucx/ucx_endpoint.h"
#include "worker/expert_parallel/ucx/ucx_fabric.h"
#include "worker/expert_parallel/ucx/wire/exchange_frames.h"
#include "worker/expert_parallel/ucx/wire/mailbox.h"

namespace baleen::worker {

// One thread at a time, except Interrupt and Abort.
class UcxGroup final : private FabricSink {
 public:
  static absl::StatusOr<std::unique_ptr<UcxGroup>> Create(const UcxEndpointOptions& options);
  // Says goodbye. Takes less than a second, whatever the peers do; but rows of a step that has gone
  // well are waited for, at most wait_max, until the peers have them.
  ~UcxGroup() override;

  const std::string& address() const { return address_; }
  absl::Status Connect(std::uint64_t epoch, std::span<const std::string> addresses);
  std::uint64_t dropped_frames() const { return dropped_frames_; }
  std::int32_t mapped_peers() const;

  // This rank's memory: what `source` has said, and where outputs come home.
  Mailbox& InboxOf(std::int32_t source) const {
    return *reinterpret_cast<Mailbox*>(InboxBytes(source));
  }
  std::byte* InboxRows(std::int32_t source, int lane) const {
    return InboxBytes(source) + layout_.OffsetOf(lane);
  }
  std::byte* Outputs(int lane) const { return outputs_ + lane * layout_.output_lane_bytes; }
  const MailboxLayout& layout() const { return layout_; }

  // A peer's memory, if rows go there without a message; this rank's own too.
  bool Mapped(std::int32_t peer) const { return peers_[peer].outbox != nullptr; }
  Mailbox& OutboxTo(std::int32_t peer) const { return *peers_[peer].outbox; }
  std::byte* OutboxRows(std::int32_t peer, int lane) const {
    return reinterpret_cast<std::byte*>(peers_[peer].outbox) + layout_.OffsetOf(lane);
  }
  std::byte* OutputsOf(std::int32_t peer, int lane) const {
    return peers_[peer].outputs + lane * layout_.output_lane_bytes;
  }
  // Whether the outputs of `peer` that Await has seen are in Expected::outputs.
  bool CameAsMessage(std::int32_t peer, int lane) const {
    return peers_[peer].combined_by_message[lane] == expected_.dispatches[lane];
  }
  // Memory for rows that are sent as messages, or arrive as such.
  absl::StatusOr<std::byte*> Allocate(std::size_t bytes, bool registered) {
    return fabric_->Allocate(bytes, registered);
  }

  // What messages are measured by: the counts of this rank, and where the outputs that it asked for
  // with its last dispatch are to go, by peer.
  struct Expected {
    std::uint64_t openings = 0;
    std::array<std::uint64_t, kLanes> dispatches{};
    std::array<std::uint64_t, kLanes> combines{};
    std::array<std::vector<std::span<std::byte>>, kLanes> outputs;
  };
  Expected& expected() { return expected_; }

  // After a count in OutboxTo(peer) has gone up.
  absl::Status WakeIfAsleep(std::int32_t peer, ExchangePhase phase);
  // Sends what is not mapped. `payload` stays until Await of a later phase of the lane returns.
  absl::Status Send(std::int32_t peer, ExchangePhase phase, const ExchangeFrame& frame,
                    std::span<const std::byte> payload);
  // Frames of this rank, for Send.
  ExchangeFrame NewFrame(FrameKind kind, std::int32_t peer) const {
    return MakeFrame(kind, self_, peers_[peer].key);
  }
  // Waits until the messages that were sent in `phase` of `lane` are out of the hands of UCX.
  absl::Status AwaitSent(ExchangePhase phase, int lane);
  // Waits until all ranks have counted up to `number` in `phase`, at most wait_max.
  absl::Status Await(ExchangePhase phase, int lane, std::uint64_t number);
  absl::StatusOr<bool> AwaitPeers(absl::Duration limit);

  void Interrupt();
  void Abort(const absl::Status& why);
  // OK, or why the endpoint is broken.
  absl::Status Broken();
  // Breaks it: peers hear of it.
  absl::Status Break(const absl::Status& why, Farewell farewell = Farewell::kLeft,
                     std::int32_t culprit = 0);

 private:
  struct Peer {
    bool connected = false;
    std::uint64_t key = 0;
    bool hello = false;                   // has been heard
    bool ready = false;                   // has heard ours, or our goodbye
    std::optional<SharedMemory> mailbox;  // this rank's, for this peer
    std::optional<SharedMemory> its_mailbox;
    std::optional<SharedMemory> its_outputs;
    Mailbox* outbox = nullptr;
    std::byte* outputs = nullptr;
    bool gone = false;
    Farewell farewell = Farewell::kLeft;
    std::int32_t culprit = 0;
    std::string lost_why;                                     // in UCX's words
    std::array<std::uint64_t, kLanes> combined_by_message{};  // the last such combine

    OutgoingMessage hello_out;
    OutgoingMessage ready_out;
    OutgoingMessage goodbye_out;
    OutgoingMessage wake_out;
    std::array<OutgoingMessage, 2> openings_out;  // by parity
    std::array<OutgoingMessage, kLanes> dispatches_out;
    std::array<OutgoingMessage, kLanes> combines_out;
    IncomingMessage opening_in;
    std::array<IncomingMessage, kLanes> dispatches_in;
    std::array<IncomingMessage, kLanes> combines_in;
  };
  // How long a wait has been going on.
  struct Waiting;

  explicit UcxGroup(const UcxEndpointOptions& options);
  absl::Status Start();
  std::byte* InboxBytes(std::int32_t source) const { return inboxes_ + source * layout_.stride; }
  const std::atomic<std::uint64_t>& CountOf(std::int32_t source, ExchangePhase phase,
                                            int lane) const;
  std::int64_t TimeOf(std::int32_t source, ExchangePhase phase, int lane) const;

  absl::Status AllocateMailboxes(const std::vector<JoinCard>& cards);
  bool Shares(const JoinCard& card) const;
  absl::Status ConnectPeers(const std::vector<JoinCard>& cards);
  absl::Status AwaitHellos();
  void SendHello(std::int32_t peer);
  void SendReady(std::int32_t peer);
  void AwaitReady();
  void MapPeer(const ExchangeFrame& hello);

  IncomingMessage* OnMessage(std::span<const std::byte> header, std::size_t payload_bytes) override;
  void OnReceived(IncomingMessage& message) override;
  void OnPeerLost(std::int32_t peer, const std::string& why) override;
  absl::Status CheckMessage(const ExchangeFrame& frame, std::size_t payload_bytes) const;
  IncomingMessage* RoomFor(const ExchangeFrame& frame, std::size_t payload_bytes);

  absl::Status Claim(OutgoingMessage& message, std::int32_t peer, ExchangePhase phase);
  void SayGoodbye(Farewell farewell, std::int32_t culprit);
  absl::Status HasGone(std::int32_t peer, ExchangePhase phase);
  absl::Status CheckGone(ExchangePhase phase, int lane, std::uint64_t number);
  void Pause(Waiting& waiting, std::int32_t peer, const std::atomic<std::uint64_t>& count,
             std::uint64_t number);
  void Sleep(absl::Duration limit);

  const UcxEndpointOptions options_;
  const AllToAllShape shape_;
  EndpointIdentity self_;
  JoinCard card_;
  std::string address_;
  MailboxLayout layout_;
  std::vector<Peer> peers_;  // by rank
  bool all_mapped_ = false;
  std::byte* inboxes_ = nullptr;  // [ranks], layout_.stride apart
  std::optional<SharedMemory> outputs_memory_;
  std::byte* outputs_ = nullptr;  // [kLanes], layout_.output_lane_bytes apart
  Expected expected_;
  std::uint64_t dropped_frames_ = 0;
  bool any_gone_ = false;
  absl::Status violation_;
  absl::Status broken_;

  std::atomic<bool> interrupted_ = false;
  std::atomic<bool> is_aborted_ = false;
  std::mutex mutex_;
  absl::Status aborted_;  // under mutex_

  std::unique_ptr<UcxFabric> fabric_;  // the first to go: it writes into all of the above
};

}  // namespace baleen::worker
