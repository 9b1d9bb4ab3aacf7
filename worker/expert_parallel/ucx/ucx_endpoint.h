// A rank's end of its group over UCX.
//
// Ranks of one machine write rows straight into the memory of their receivers, which both have
// mapped; what is written where is counted there too, and a receiver that sleeps is woken by a
// message. All other ranks send messages, whose rows the receiver fetches into memory of its own.
//
// A peer of this machine can write: its own mailbox, which no other peer can, and the outputs that
// come home, which all peers of this machine can (a copy on the way would halve the speed). Nothing
// that is read from there is believed: a peer that breaks the rules makes the step fail with
// FAILED_PRECONDITION and can not make this rank read or write elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/expert_parallel/all_to_all.h"
#include "worker/expert_parallel/exchange_meter.h"
#include "worker/expert_parallel/pending_endpoint.h"

namespace baleen::worker {

struct UcxEndpointOptions {
  AllToAllShape shape;
  std::int32_t rank = 0;
  ExchangeMeter* meter = nullptr;  // borrowed, may be null
  // How long Connect may take.
  absl::Duration connect_max = absl::Seconds(5);
  // Rows to ranks of this machine go through memory that both map.
  bool share_memory = true;
  // The transports that UCX may use, as in UCX_TLS, which goes first; empty: all.
  std::string transports;
};

class UcxEndpoint : public GroupEndpoint {
 public:
  // Messages that were no frames of a peer in this epoch.
  virtual std::uint64_t dropped_frames() const = 0;
  // Peers whose memory is mapped: rows go there without a message.
  virtual std::int32_t mapped_peers() const = 0;
};

class UcxGroup;

// Buffers are sized by the shape when it connects; pages are taken when they are first written.
class PendingUcxEndpoint final : public PendingEndpoint {
 public:
  // INVALID_ARGUMENT names what is out of range, UNAVAILABLE what UCX lacks.
  static absl::StatusOr<std::unique_ptr<PendingUcxEndpoint>> Create(
      const UcxEndpointOptions& options);
  ~PendingUcxEndpoint() override;

  // At most 4,096 bytes: how the others reach this rank, and its shape.
  const std::string& address() const override;

  // All ranks connect at about the same time: returns when this rank has heard of each, and each of
  // this rank. Besides what PendingEndpoint says, FAILED_PRECONDITION names a rank that is in
  // another epoch, DEADLINE_EXCEEDED one that has not answered after connect_max.
  absl::StatusOr<std::shared_ptr<GroupEndpoint>> Connect(
      std::uint64_t epoch, std::span<const std::string> addresses) override;
  // The same, for who wants to know what it is.
  absl::StatusOr<std::unique_ptr<UcxEndpoint>> ConnectUcx(std::uint64_t epoch,
                                                          std::span<const std::string> addresses);

 private:
  PendingUcxEndpoint(const UcxEndpointOptions& options, std::unique_ptr<UcxGroup> group);

  const UcxEndpointOptions options_;
  const std::string address_;
  std::unique_ptr<UcxGroup> group_;  // null once connected
};

}  // namespace baleen::worker
