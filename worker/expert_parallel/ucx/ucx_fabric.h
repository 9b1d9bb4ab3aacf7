// One UCX context and worker, its memory and its connections to the ranks of a group. Moves
// messages whose receivers decide where they go. Knows nothing of steps.
#pragma once

#include <ucp/api/ucp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/expert_parallel/ucx/wire/exchange_frames.h"

namespace baleen::worker {

class UcxFabric;

// Owned by who sends or receives, and used again and again: nothing is allocated per message. Stays
// where it is while in flight.
struct OutgoingMessage {
  ExchangeFrame frame;
  bool in_flight = false;  // UCX reads frame and payload
  UcxFabric* fabric = nullptr;
};

struct IncomingMessage {
  ExchangeFrame frame;
  std::span<std::byte> payload;
  bool in_flight = false;  // UCX writes payload
  UcxFabric* fabric = nullptr;
};

// Who hears what happens. Called from UcxFabric's methods, on their thread.
class FabricSink {
 public:
  virtual ~FabricSink() = default;
  // Bytes of anybody who can reach this worker. Null drops the message; else OnReceived follows,
  // unless it fails to arrive. The payload that is returned has payload_bytes.
  virtual IncomingMessage* OnMessage(std::span<const std::byte> header,
                                     std::size_t payload_bytes) = 0;
  virtual void OnReceived(IncomingMessage& message) = 0;
  virtual void OnPeerLost(std::int32_t peer, const std::string& why) = 0;
};

// One thread at a time, except Signal.
class UcxFabric {
 public:
  // `sink` is borrowed and outlives the fabric. `transports` as in UCX_TLS; empty: all.
  static absl::StatusOr<std::unique_ptr<UcxFabric>> Create(FabricSink& sink,
                                                           const std::string& transports);
  // Closes every connection by force: what is in flight ends within milliseconds. Frees all memory.
  ~UcxFabric();
  UcxFabric(const UcxFabric&) = delete;
  UcxFabric& operator=(const UcxFabric&) = delete;

  const std::string& address() const { return address_; }

  // Whole pages of zeros that live as long as the fabric and are taken when first touched; at `at`
  // if that is not null, in place of what is mapped there. Messages leave from and arrive in it
  // without being copied, if it is registered.
  absl::StatusOr<std::byte*> Allocate(std::size_t bytes, bool registered, std::byte* at = nullptr);

  // Once for each peer. Whether it can be reached is known only later: OnPeerLost.
  absl::Status Connect(std::int32_t peer, const std::string& address);
  // Nothing is sent to a peer that was lost.
  void Send(std::int32_t peer, OutgoingMessage& message, std::span<const std::byte> payload);

  // Makes progress; true if there was anything to do.
  bool Progress();
  // Sleeps until there may be progress to make, Signal, or `limit`.
  void Wait(absl::Duration limit);
  // Ends a Wait, now or the next one. Any thread.
  void Signal();
  // Makes progress until nothing is in flight any more, at most for `limit`: peers have fetched
  // what they fetch.
  void Drain(absl::Duration limit);
  // The same until all that was sent is on its way, too.
  void Flush(absl::Duration limit);

 private:
  struct Peer;
  struct Region {
    std::byte* data;
    std::size_t bytes;
    ucp_mem_h handle;  // null: not registered
  };

  explicit UcxFabric(FabricSink& sink);
  absl::Status Start(const std::string& transports);
  absl::Status RegisterHandler();
  void Close();
  ucs_status_t Receive(std::span<const std::byte> header, void* data, std::size_t length,
                       bool rendezvous);
  void FinishSend(OutgoingMessage& message);
  void FinishReceive(IncomingMessage& message, ucs_status_t status);
  void MarkLost(Peer& peer, ucs_status_t status);
  void TellLost();

  FabricSink& sink_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;  // owned by worker_
  std::string address_;
  std::vector<Region> regions_;
  std::vector<std::unique_ptr<Peer>> peers_;  // by rank; null: not connected
  bool lost_ = false;                         // some peer is lost, and the sink does not know yet
  std::size_t in_flight_ = 0;
};

}  // namespace baleen::worker
