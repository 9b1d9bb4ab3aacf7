// One UCX context, worker and its connections: frames as eager active messages, blocks as
// rendezvous active messages that the receiver fetches into memory of its own. Knows nothing of
// transfers.
#pragma once

#include <ucp/api/ucp.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/kv_transfer/protocol/transfer_table.h"

namespace baleen::worker {

// Who hears what happens. Called from UcxWorker::Progress, SendBlock and the destructor, on their
// thread.
class UcxSink {
 public:
  virtual ~UcxSink() = default;
  // Bytes of anybody who can reach this worker; empty for a message that cannot be a frame.
  virtual void OnFrame(std::span<const std::byte> frame) = 0;
  // A block of `length` bytes waits to be fetched. nullopt drops it; else OnBlockReceived follows,
  // and until then the memory is written.
  virtual std::optional<BlockToReceive> OnBlock(std::span<const std::byte> header,
                                                std::size_t length) = 0;
  virtual void OnBlockReceived(const BlockToReceive& block, const absl::Status& status) = 0;
  // The block's memory is not read any more.
  virtual void OnBlockSent(const BlockToSend& block, const absl::Status& status,
                           std::uint64_t checksum) = 0;
  // The connection to `peer` broke and is being closed. What was in flight over it ends by itself,
  // with an error. Not called after ClosePeer.
  virtual void OnPeerLost(const std::string& peer, const absl::Status& why) = 0;
};

// One thread at a time, except Signal.
class UcxWorker {
 public:
  // `sink` is borrowed and outlives the worker. UCX chooses the best transport that reports dead
  // peers, among those that its own environment variables allow: RDMA where there is any, else TCP,
  // within a machine too.
  static absl::StatusOr<std::unique_ptr<UcxWorker>> Create(UcxSink& sink);
  // Closes every connection by force. Operations still in flight end, and the sink hears of it.
  ~UcxWorker();
  UcxWorker(const UcxWorker&) = delete;
  UcxWorker& operator=(const UcxWorker&) = delete;

  const std::string& address() const { return address_; }

  // Queues `frame` for `peer`, connecting to it if need be. A failure is that of the peer:
  // OnPeerLost follows.
  void SendFrame(const std::string& peer, std::string frame);
  // Offers `block` behind `header`. OnBlockSent follows, possibly at once.
  void SendBlock(BlockToSend block, std::string header, std::uint64_t checksum);
  // Closes the connection to `peer` by force: all that is in flight over it ends with an error
  // within milliseconds of Progress. The next SendFrame or SendBlock connects anew.
  void ClosePeer(const std::string& peer);

  // Makes progress; true if there was anything to do.
  bool Progress();
  // Sleeps until there may be progress to make, Signal, or `limit`.
  void Wait(absl::Duration limit);
  // Ends a Wait, now or the next one. Any thread.
  void Signal();

  // Waits until the peers have what was sent, at most `limit`, making progress meanwhile.
  void Flush(absl::Duration limit);

  std::size_t operations_in_flight() const { return operations_in_flight_; }
  // The transports of the first connection, as "tcp/eth0.0"; empty before there was one.
  const std::string& lanes() const { return lanes_; }

 private:
  struct Peer;
  struct FrameOperation;
  struct BlockOperation;
  struct ReceiveOperation;
  struct ClosingPeer {
    std::unique_ptr<Peer> peer;
    ucs_status_ptr_t request = nullptr;
  };

  explicit UcxWorker(UcxSink& sink);
  absl::Status Start();
  absl::Status RegisterHandlers();
  absl::Status CheckTransports();
  absl::StatusOr<Peer*> Connect(const std::string& address);
  void MarkFailed(Peer& peer, ucs_status_t status);
  void CloseFailedPeers();
  void BeginClose(std::unique_ptr<Peer> peer);
  void ReapClosedPeers();
  void NoteLanes(const Peer& peer);
  void FinishFrame(FrameOperation* operation, ucs_status_t status);
  void FinishBlock(BlockOperation* operation, ucs_status_t status);
  void FinishReceive(ReceiveOperation* operation, ucs_status_t status);
  ucs_status_t ReceiveFrame(std::span<const std::byte> data, bool rendezvous);
  ucs_status_t ReceiveBlock(std::span<const std::byte> header, void* data, std::size_t length,
                            bool rendezvous);

  UcxSink& sink_;
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;  // owned by worker_
  std::string address_;
  std::map<std::string, std::unique_ptr<Peer>> peers_;
  std::vector<std::string> failed_;  // addresses in peers_, to be closed outside of UCX's callbacks
  std::vector<ClosingPeer> closing_;
  std::size_t operations_in_flight_ = 0;
  std::string lanes_;
};

}  // namespace baleen::worker
