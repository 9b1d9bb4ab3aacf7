#include "worker/kv_transfer/memory_kv_transfer.h"

#include <fmt/format.h>

#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "observability/base/check.h"
#include "worker/kv_transfer/protocol/checksum.h"
#include "worker/kv_transfer/protocol/frames.h"
#include "worker/kv_transfer/protocol/transfer_table.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

// A frame on its way, or a block behind its header. The block's bytes stay with the sender until
// the receiver has fetched them.
struct Packet {
  std::string from;
  std::string bytes;
  std::optional<BlockToSend> block;
  std::uint64_t checksum = 0;  // of the block, as the header says
};

// A block that the receiver has begun to fetch.
struct Arriving {
  Packet packet;
  BlockToReceive destination;
};

struct Endpoint {
  Endpoint(const TransferLimits& limits, const std::string& address) : table(limits, address) {}

  TransferTable table;
  std::function<void()> wake;
  bool awake = false;  // `wake` was called and Poll not yet
  bool alive = true;
  absl::Status refusal;
  std::deque<Packet> inbox;
  std::vector<Arriving> arriving;
};

std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

absl::Status PeerGone() { return absl::UnavailableError("KV transfer: the peer is gone"); }

}  // namespace

// Everything, guarded by one mutex.
struct MemoryKvHub::State {
  explicit State(const Clock& the_clock) : clock(the_clock) {}

  const Clock& clock;
  std::mutex mutex;
  std::map<std::string, Endpoint, std::less<>> endpoints;
  std::uint64_t attached = 0;
  std::uint32_t blocks_to_corrupt = 0;
  bool held = false;

  Endpoint* FindAlive(std::string_view address) {
    const auto found = endpoints.find(address);
    return found != endpoints.end() && found->second.alive ? &found->second : nullptr;
  }

  // Everything that one call of Poll does at `address`.
  void Turn(const std::string& address, Endpoint& self) {
    if (!held) {
      for (Arriving& arrival : std::exchange(self.arriving, {})) Finish(self, arrival);
      for (Packet& packet : std::exchange(self.inbox, {})) Deliver(self, packet);
    }
    self.table.OnTick(clock.Monotonic());
    Dispatch(address, self);
  }

  void Finish(Endpoint& self, Arriving& arrival) {
    const BlockToSend& block = *arrival.packet.block;
    const std::span<std::byte> memory = arrival.destination.memory;
    std::memcpy(memory.data(), block.block.data(), memory.size());
    if (blocks_to_corrupt > 0) {
      blocks_to_corrupt--;
      memory[memory.size() / 2] ^= std::byte{1};
    }
    self.table.EndBlock(arrival.destination.header, absl::OkStatus(), Checksum(memory),
                        clock.Monotonic());
    Sent(arrival.packet, absl::OkStatus());
  }

  void Deliver(Endpoint& self, Packet& packet) {
    if (packet.block) {
      if (auto destination =
              self.table.BeginBlock(BytesOf(packet.bytes), packet.block->block.size())) {
        self.arriving.push_back({std::move(packet), *destination});
      } else {
        Sent(packet, absl::OkStatus());  // a dropped block looks like any other to its sender
      }
      return;
    }
    if (!self.refusal.ok()) {
      const absl::StatusOr<Frame> frame = DecodeFrame(BytesOf(packet.bytes));
      const OfferFrame* offer = frame.ok() ? std::get_if<OfferFrame>(&*frame) : nullptr;
      Endpoint* sender = FindAlive(packet.from);
      if (offer != nullptr) {
        if (sender != nullptr) {
          const FailedFrame refused{.id = offer->id, .status = self.refusal};
          sender->inbox.push_back({.from = offer->reply_address, .bytes = EncodeFrame(refused)});
        }
        return;
      }
    }
    self.table.OnFrame(BytesOf(packet.bytes), clock.Monotonic());
  }

  // Tells the sender of a block what became of it.
  void Sent(const Packet& packet, const absl::Status& status) {
    if (Endpoint* sender = FindAlive(packet.from)) {
      sender->table.OnBlockSent(*packet.block, status, packet.checksum, clock.Monotonic());
      Dispatch(packet.from, *sender);
    }
  }

  // Carries out what the table of `address` wants done.
  void Dispatch(const std::string& address, Endpoint& self) {
    for (auto actions = self.table.TakeActions(); !actions.empty();
         actions = self.table.TakeActions()) {
      for (const Action& action : actions) {
        if (const auto* close = std::get_if<ClosePeer>(&action)) {
          Disconnect(address, close->peer, close->why);
        } else {
          const auto& send = std::get<SendFrame>(action);
          Put(address, self, send.peer, {.from = address, .bytes = send.frame});
        }
      }
    }
    while (auto block = self.table.NextBlock()) {
      const std::uint64_t checksum = Checksum(block->block);
      const BlockHeader header{.id = block->id,
                               .number = block->number,
                               .length = block->block.size(),
                               .checksum = checksum};
      const std::string peer = block->peer;
      Packet packet{address, EncodeFrame(header), std::move(block), checksum};
      if (!Put(address, self, peer, packet)) Sent(packet, PeerGone());
    }
  }

  bool Put(const std::string& from, Endpoint& self, const std::string& to, const Packet& packet) {
    if (Endpoint* peer = FindAlive(to)) {
      peer->inbox.push_back(packet);
      return true;
    }
    self.table.OnPeerLost(to, PeerGone(), clock.Monotonic());
    return false;
  }

  // Ends what is on its way between the two; the other side learns that the connection is gone.
  void Disconnect(const std::string& from, const std::string& to, const absl::Status& why) {
    const absl::Status status = absl::UnavailableError(
        fmt::format("KV transfer: the connection was closed: {}", std::string(why.message())));
    Abandon(from, to, status);
    if (from != to) Abandon(to, from, status);
    if (Endpoint* peer = FindAlive(to); peer != nullptr && from != to) {
      peer->table.OnPeerLost(from, status, clock.Monotonic());
      Dispatch(to, *peer);
    }
  }

  // Drops what `from` has sent and `to` has not got yet.
  void Abandon(const std::string& from, const std::string& to, const absl::Status& why) {
    const auto receiver = endpoints.find(to);
    if (receiver == endpoints.end()) return;
    Endpoint& self = receiver->second;
    for (Arriving& arrival : std::exchange(self.arriving, {})) {
      if (arrival.packet.from != from) {
        self.arriving.push_back(std::move(arrival));
        continue;
      }
      self.table.EndBlock(arrival.destination.header, why, 0, clock.Monotonic());
      Sent(arrival.packet, why);
    }
    for (Packet& packet : std::exchange(self.inbox, {})) {
      if (packet.from != from) {
        self.inbox.push_back(std::move(packet));
      } else if (packet.block) {
        Sent(packet, why);
      }
    }
  }

  // The process behind `address` is no more.
  void Kill(const std::string& address, Endpoint& self) {
    self.alive = false;
    for (auto& [other, endpoint] : endpoints) {
      if (!endpoint.alive) continue;
      endpoint.table.OnPeerLost(address, PeerGone(), clock.Monotonic());
      Abandon(other, address, PeerGone());
      Abandon(address, other, PeerGone());
      Dispatch(other, endpoint);
    }
  }

  // The endpoints that have become ready since they were last polled.
  std::vector<std::function<void()>> TakeWakes() {
    std::vector<std::function<void()>> wakes;
    for (auto& [address, endpoint] : endpoints) {
      const bool moving = !held && (!endpoint.inbox.empty() || !endpoint.arriving.empty());
      const bool ready = endpoint.alive && (moving || endpoint.table.HasEvents());
      if (!ready || endpoint.awake) continue;
      endpoint.awake = true;
      if (endpoint.wake) wakes.push_back(endpoint.wake);
    }
    return wakes;
  }
};

namespace {

// Runs `body` under the hub's lock, then wakes whom it made ready, without the lock.
template <typename Body>
auto Locked(MemoryKvHub::State& hub, const Body& body) {
  std::unique_lock lock(hub.mutex);
  const auto result = body();
  const auto wakes = hub.TakeWakes();
  lock.unlock();
  for (const auto& wake : wakes) wake();
  return result;
}

class MemoryKvTransfer final : public KvTransfer {
 public:
  MemoryKvTransfer(std::shared_ptr<MemoryKvHub::State> hub, std::string address, Endpoint& self)
      : hub_(std::move(hub)), address_(std::move(address)), self_(self) {}

  ~MemoryKvTransfer() override {
    Locked(*hub_, [this] {
      if (self_.alive) {
        self_.table.CancelAll(absl::CancelledError("KV transfer: the endpoint shuts down"), Now());
        hub_->Dispatch(address_, self_);
        hub_->Kill(address_, self_);
      }
      hub_->endpoints.erase(address_);
      return 0;
    });
  }

  std::string LocalAddress() const override { return address_; }

  absl::Status Expect(TransferId id, std::vector<std::span<std::byte>> blocks) override {
    return Locked(*hub_, [&] {
      const absl::Status status = self_.table.Expect(id, std::move(blocks), Now());
      if (self_.alive) hub_->Dispatch(address_, self_);
      return status;
    });
  }

  absl::Status Send(SendPart part) override {
    return Locked(*hub_, [&] {
      const absl::Status status = self_.table.Send(std::move(part), Now());
      if (self_.alive) hub_->Dispatch(address_, self_);
      return status;
    });
  }

  void Cancel(TransferId id) override {
    Locked(*hub_, [&] {
      self_.table.Cancel(id, Now());
      if (self_.alive) hub_->Dispatch(address_, self_);
      return 0;
    });
  }

  std::vector<TransferEvent> Poll() override {
    return Locked(*hub_, [&]() -> std::vector<TransferEvent> {
      if (!self_.alive) return {};
      self_.awake = false;
      hub_->Turn(address_, self_);
      return self_.table.TakeEvents();
    });
  }

 private:
  absl::Duration Now() const { return hub_->clock.Monotonic(); }

  const std::shared_ptr<MemoryKvHub::State> hub_;
  const std::string address_;
  Endpoint& self_;  // in the hub, until the destructor
};

}  // namespace

MemoryKvHub::MemoryKvHub(const Clock& clock) : state_(std::make_shared<State>(clock)) {}
MemoryKvHub::~MemoryKvHub() = default;

std::unique_ptr<KvTransfer> MemoryKvHub::Attach(const TransferLimits& limits,
                                                std::function<void()> wake) {
  BALEEN_CHECK(ValidateTransferLimits(limits).ok(), "limits are validated before they get here");
  const std::lock_guard lock(state_->mutex);
  std::string address = fmt::format("memory-{}", ++state_->attached);
  Endpoint& endpoint = state_->endpoints.try_emplace(address, limits, address).first->second;
  endpoint.wake = std::move(wake);
  return std::make_unique<MemoryKvTransfer>(state_, std::move(address), endpoint);
}

void MemoryKvHub::DropPeer(std::string_view address) {
  Locked(*state_, [&] {
    if (Endpoint* endpoint = state_->FindAlive(address)) {
      state_->Kill(std::string(address), *endpoint);
    }
    return 0;
  });
}

void MemoryKvHub::RefuseOffers(std::string_view address, const absl::Status& refusal) {
  Locked(*state_, [&] {
    if (Endpoint* endpoint = state_->FindAlive(address)) endpoint->refusal = refusal;
    return 0;
  });
}

void MemoryKvHub::CorruptBlocks(std::uint32_t count) {
  const std::lock_guard lock(state_->mutex);
  state_->blocks_to_corrupt = count;
}

void MemoryKvHub::Hold(bool held) {
  Locked(*state_, [&] {
    state_->held = held;
    return 0;
  });
}

}  // namespace baleen::worker
