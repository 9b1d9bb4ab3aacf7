#include "worker/kv_transfer/protocol/transfer_table.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

namespace baleen::worker {

absl::Status ValidateTransferLimits(const TransferLimits& limits) {
  const auto invalid = [](std::string what) {
    return absl::InvalidArgumentError(fmt::format("KV transfer limits: {}", what));
  };
  if (limits.block_bytes == 0) return invalid("block_bytes is 0");
  if (limits.transfers_max == 0) return invalid("transfers_max is 0");
  if (limits.manifest_bytes_max > kManifestBytesMax) {
    return invalid(fmt::format("manifest_bytes_max is {}, above {}", limits.manifest_bytes_max,
                               kManifestBytesMax));
  }
  if (limits.lease <= absl::ZeroDuration()) return invalid("the lease is not positive");
  return absl::OkStatus();
}

TransferTable::TransferTable(const TransferLimits& limits, std::string local_address)
    : limits_(limits),
      incoming_(limits_, outbox_),
      outgoing_(limits_, std::move(local_address), outbox_) {}

absl::Status TransferTable::Expect(contract::TransferId id,
                                   std::vector<std::span<std::byte>> blocks, absl::Duration now) {
  return incoming_.Expect(id, std::move(blocks), HasRoom(), now);
}

absl::Status TransferTable::Send(SendPart part, absl::Duration now) {
  return outgoing_.Send(std::move(part), HasRoom(), now);
}

void TransferTable::Cancel(contract::TransferId id, absl::Duration now) {
  outgoing_.Cancel(id, now);
  incoming_.Cancel(id, now);
}

void TransferTable::OnFrame(std::span<const std::byte> bytes, absl::Duration now) {
  const absl::StatusOr<Frame> frame = DecodeFrame(bytes);
  if (!frame.ok()) {
    outbox_.dropped.malformed++;
    return;
  }
  struct Visitor {
    TransferTable& table;
    absl::Duration now;
    void operator()(const OfferFrame& frame) { table.incoming_.OnOffer(frame, now); }
    void operator()(const ReadyFrame& frame) { table.outgoing_.OnReady(frame, now); }
    // A header without its block.
    void operator()(const BlockHeader&) { table.outbox_.dropped.malformed++; }
    void operator()(const ClosingFrame& frame) { table.incoming_.OnClosing(frame, now); }
    void operator()(const HandedOverFrame& frame) { table.outgoing_.OnHandedOver(frame); }
    void operator()(const FailedFrame& frame) { table.outgoing_.OnFailed(frame, now); }
    void operator()(const WithdrawnFrame& frame) { table.incoming_.OnWithdrawn(frame, now); }
  };
  std::visit(Visitor{*this, now}, *frame);
}

std::optional<BlockToReceive> TransferTable::BeginBlock(std::span<const std::byte> header_bytes,
                                                        std::size_t length) {
  const absl::StatusOr<Frame> frame = DecodeFrame(header_bytes);
  const BlockHeader* header = frame.ok() ? std::get_if<BlockHeader>(&*frame) : nullptr;
  if (header == nullptr) {
    outbox_.dropped.malformed++;
    return std::nullopt;
  }
  if (header->length != length) {
    outbox_.dropped.wrong_shape++;
    return std::nullopt;
  }
  const auto memory = incoming_.BeginBlock(*header);
  if (!memory) return std::nullopt;
  return BlockToReceive{.header = *header, .memory = *memory};
}

void TransferTable::EndBlock(const BlockHeader& header, const absl::Status& received,
                             std::uint64_t checksum, absl::Duration now) {
  incoming_.EndBlock(header, received, checksum, now);
}

void TransferTable::OnBlockSent(const BlockToSend& block, const absl::Status& sent,
                                std::uint64_t checksum, absl::Duration now) {
  outgoing_.OnBlockSent(block.id, block.number, sent, checksum, now);
}

void TransferTable::OnPeerLost(std::string_view peer, const absl::Status& why, absl::Duration now) {
  outgoing_.OnPeerLost(peer, why, /*tell=*/false, now);
  incoming_.OnPeerLost(peer, why, /*tell=*/false, now);
}

void TransferTable::OnTick(absl::Duration now) {
  const std::size_t before = outbox_.actions.size();
  incoming_.OnTick(now);
  outgoing_.OnTick(now);
  // A connection that is closed for one transfer takes the others along. What they have to say is
  // appended: it goes out over the connection that follows.
  const std::size_t after = outbox_.actions.size();
  for (std::size_t i = before; i < after; i++) {
    if (const auto* close = std::get_if<ClosePeer>(&outbox_.actions[i])) {
      const ClosePeer closed = *close;  // appending moves the actions
      const absl::Status why = absl::UnavailableError(fmt::format(
          "KV transfer: the connection was closed because another transfer over it hung"));
      outgoing_.OnPeerLost(closed.peer, why, /*tell=*/true, now);
      incoming_.OnPeerLost(closed.peer, why, /*tell=*/true, now);
    }
  }
}

void TransferTable::CancelAll(const absl::Status& why, absl::Duration now) {
  outgoing_.CancelAll(why, now);
  incoming_.CancelAll(why, now);
}

std::vector<Action> TransferTable::TakeActions() { return std::exchange(outbox_.actions, {}); }

std::vector<TransferEvent> TransferTable::TakeEvents() { return std::exchange(outbox_.events, {}); }

}  // namespace baleen::worker
