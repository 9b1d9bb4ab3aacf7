#include "worker/kv_transfer/memory_kv_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace baleen::worker {
namespace {

using contract::TransferId;

struct Incoming {
  std::vector<std::span<std::byte>> blocks;
  absl::Duration deadline;
};

struct Outgoing {
  std::string peer;
  std::vector<SendPart> pending;
  std::vector<SendPart> done;  // blocks that moved
  bool closed = false;
  SendPart closing;
  bool corrupted = false;
  absl::Duration deadline;
};

struct Endpoint {
  TransferLimits limits;
  std::function<void()> wake;
  bool alive = true;
  absl::Status refusal;
  std::map<TransferId, Incoming> incoming;
  std::map<TransferId, Outgoing> outgoing;
  std::map<TransferId, absl::Duration> ended_sends;
  std::vector<TransferEvent> events;

  void End(TransferEvent event) {
    events.push_back(std::move(event));
    if (wake) wake();
  }
  void FailSend(TransferId id, absl::Status status) {
    if (outgoing.erase(id) == 0) return;
    ended_sends.emplace(id, absl::ZeroDuration());
    End({.id = id, .kind = TransferEventKind::kFailed, .status = std::move(status)});
  }
  void FailReceive(TransferId id, absl::Status status) {
    if (incoming.erase(id) == 0) return;
    End({.id = id, .kind = TransferEventKind::kFailed, .status = std::move(status)});
  }
};

}  // namespace

struct MemoryKvHub::State {
  explicit State(const Clock& the_clock) : clock(the_clock) {}

  const Clock& clock;
  std::mutex mutex;
  std::map<std::string, Endpoint, std::less<>> endpoints;
  std::uint32_t corrupt_blocks = 0;
  bool held = false;
  std::uint64_t attached = 0;

  // Moves everything that can move and runs the leases.
  void Advance() {
    const absl::Duration now = clock.Monotonic();
    for (auto& [address, endpoint] : endpoints) {
      if (!endpoint.alive) continue;
      std::vector<TransferId> sends;
      for (const auto& [id, transfer] : endpoint.outgoing) sends.push_back(id);
      for (const TransferId id : sends) AdvanceSend(endpoint, id, now);
      std::vector<TransferId> late;
      for (const auto& [id, transfer] : endpoint.incoming) {
        if (transfer.deadline <= now) late.push_back(id);
      }
      for (const TransferId id : late) {
        endpoint.FailReceive(id, absl::DeadlineExceededError("KV transfer: lease ran out"));
      }
    }
  }

  void AdvanceSend(Endpoint& sender, TransferId id, absl::Duration now) {
    Outgoing& transfer = sender.outgoing.at(id);
    if (transfer.deadline <= now) {
      sender.FailSend(id, absl::DeadlineExceededError("KV transfer: lease ran out"));
      return;
    }
    const auto peer = endpoints.find(transfer.peer);
    if (peer == endpoints.end() || !peer->second.alive) {
      sender.FailSend(id, absl::UnavailableError("KV transfer: the peer is gone"));
      return;
    }
    Endpoint& receiver = peer->second;
    if (held) return;
    if (!receiver.refusal.ok()) {
      sender.FailSend(id, receiver.refusal);
      return;
    }
    const auto incoming = receiver.incoming.find(id);
    if (incoming == receiver.incoming.end()) return;
    MoveBlocks(transfer, incoming->second, now, sender.limits.lease);
    if (transfer.closed && transfer.done.size() == transfer.closing.blocks_total) {
      Finish(sender, receiver, id);
    }
  }

  void MoveBlocks(Outgoing& from, Incoming& to, absl::Duration now, absl::Duration lease) {
    for (SendPart& part : from.pending) {
      if (part.block_number >= to.blocks.size()) continue;
      std::memcpy(to.blocks[part.block_number].data(), part.block.data(), part.block.size());
      if (corrupt_blocks > 0) {
        corrupt_blocks--;
        to.blocks[part.block_number][0] ^= std::byte{1};
        from.corrupted = true;
      }
      from.done.push_back(std::move(part));
      from.deadline = to.deadline = now + lease;
    }
    from.pending.clear();
  }

  void Finish(Endpoint& sender, Endpoint& receiver, TransferId id) {
    Outgoing transfer = std::move(sender.outgoing.at(id));
    if (transfer.corrupted) {
      const auto status = absl::DataLossError("KV transfer: checksum mismatch");
      receiver.FailReceive(id, status);
      sender.FailSend(id, status);
      return;
    }
    const std::uint64_t bytes = transfer.done.size() * sender.limits.block_bytes;
    receiver.incoming.erase(id);
    receiver.End({.id = id,
                  .kind = TransferEventKind::kReceived,
                  .manifest = transfer.closing.manifest,
                  .bytes = bytes});
    sender.outgoing.erase(id);
    sender.ended_sends.emplace(id, absl::ZeroDuration());
    sender.End({.id = id, .kind = TransferEventKind::kHandedOver, .bytes = bytes});
  }
};

namespace {

class MemoryKvTransfer final : public KvTransfer {
 public:
  MemoryKvTransfer(std::shared_ptr<MemoryKvHub::State> hub, std::string address)
      : hub_(std::move(hub)), address_(std::move(address)) {}

  ~MemoryKvTransfer() override {
    const std::lock_guard lock(hub_->mutex);
    Self().alive = false;
  }

  std::string LocalAddress() const override { return address_; }

  absl::Status Expect(TransferId id, std::vector<std::span<std::byte>> blocks) override {
    const std::lock_guard lock(hub_->mutex);
    Endpoint& self = Self();
    if (self.incoming.contains(id)) return absl::AlreadyExistsError("KV transfer: id in use");
    if (self.incoming.size() + self.outgoing.size() >= self.limits.transfers_max) {
      return absl::ResourceExhaustedError(
          fmt::format("KV transfer: {} transfers under way, the limit", self.limits.transfers_max));
    }
    const auto fits = [&](const auto& block) { return block.size() == self.limits.block_bytes; };
    if (blocks.empty() || !std::all_of(blocks.begin(), blocks.end(), fits)) {
      return absl::InvalidArgumentError(
          fmt::format("KV transfer: blocks must be {} bytes each", self.limits.block_bytes));
    }
    self.incoming[id] = {std::move(blocks), hub_->clock.Monotonic() + self.limits.lease};
    return absl::OkStatus();
  }

  absl::Status Send(SendPart part) override {
    const std::lock_guard lock(hub_->mutex);
    Endpoint& self = Self();
    if (self.ended_sends.contains(part.id)) {
      return absl::FailedPreconditionError("KV transfer: this transfer has ended");
    }
    if (!self.outgoing.contains(part.id) &&
        self.incoming.size() + self.outgoing.size() >= self.limits.transfers_max) {
      return absl::ResourceExhaustedError(
          fmt::format("KV transfer: {} transfers under way, the limit", self.limits.transfers_max));
    }
    if (part.block.size() != (part.last ? 0 : self.limits.block_bytes)) {
      return absl::InvalidArgumentError(
          fmt::format("KV transfer: blocks must be {} bytes each", self.limits.block_bytes));
    }
    if (part.manifest.size() > self.limits.manifest_bytes_max) {
      return absl::InvalidArgumentError(fmt::format("KV transfer: manifest above {} bytes",
                                                    self.limits.manifest_bytes_max));
    }
    Outgoing& transfer = self.outgoing[part.id];
    if (transfer.peer.empty()) transfer.peer = part.peer_address;
    transfer.deadline = hub_->clock.Monotonic() + self.limits.lease;
    if (part.last) {
      transfer.closed = true;
      transfer.closing = std::move(part);
    } else {
      transfer.pending.push_back(std::move(part));
    }
    return absl::OkStatus();
  }

  void Cancel(TransferId id) override {
    const std::lock_guard lock(hub_->mutex);
    const auto status = absl::CancelledError("KV transfer: cancelled");
    Endpoint& self = Self();
    if (const auto sending = self.outgoing.find(id); sending != self.outgoing.end()) {
      const auto peer = hub_->endpoints.find(sending->second.peer);
      self.FailSend(id, status);
      if (peer != hub_->endpoints.end()) peer->second.FailReceive(id, status);
    }
    if (self.incoming.contains(id)) {
      self.FailReceive(id, status);
      for (auto& [address, peer] : hub_->endpoints) {
        const auto sending = peer.outgoing.find(id);
        if (sending != peer.outgoing.end() && sending->second.peer == address_) {
          peer.FailSend(id, status);
        }
      }
    }
  }

  std::vector<TransferEvent> Poll() override {
    const std::lock_guard lock(hub_->mutex);
    if (!Self().alive) return {};
    hub_->Advance();
    return std::exchange(Self().events, {});
  }

 private:
  Endpoint& Self() { return hub_->endpoints.find(address_)->second; }

  const std::shared_ptr<MemoryKvHub::State> hub_;
  const std::string address_;
};

}  // namespace

MemoryKvHub::MemoryKvHub(const Clock& clock) : state_(std::make_shared<State>(clock)) {}
MemoryKvHub::~MemoryKvHub() = default;

std::unique_ptr<KvTransfer> MemoryKvHub::Attach(TransferLimits limits, std::function<void()> wake) {
  const std::lock_guard lock(state_->mutex);
  std::string address = fmt::format("memory-{}", ++state_->attached);
  Endpoint& endpoint = state_->endpoints[address];
  endpoint.limits = limits;
  endpoint.wake = std::move(wake);
  return std::make_unique<MemoryKvTransfer>(state_, std::move(address));
}

void MemoryKvHub::DropPeer(std::string_view address) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->endpoints.find(address);
  if (found != state_->endpoints.end()) found->second.alive = false;
}

void MemoryKvHub::RefuseOffers(std::string_view address, absl::Status refusal) {
  const std::lock_guard lock(state_->mutex);
  const auto found = state_->endpoints.find(address);
  if (found != state_->endpoints.end()) found->second.refusal = std::move(refusal);
}

void MemoryKvHub::CorruptBlocks(std::uint32_t count) {
  const std::lock_guard lock(state_->mutex);
  state_->corrupt_blocks = count;
}

void MemoryKvHub::Hold(bool held) {
  const std::lock_guard lock(state_->mutex);
  state_->held = held;
}

}  // namespace baleen::worker
