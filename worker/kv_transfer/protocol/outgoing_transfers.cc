#include "worker/kv_transfer/protocol/outgoing_transfers.h"

#include <fmt/format.h>

#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "worker/kv_transfer/protocol/checksum.h"

namespace baleen::worker {
namespace {

using contract::TransferId;

std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

absl::Status DoesNotFit(std::uint32_t number, std::uint32_t reserved) {
  return absl::FailedPreconditionError(
      fmt::format("KV transfer: block {} is to be sent, the receiver has reserved {} blocks",
                  number, reserved));
}

}  // namespace

OutgoingTransfers::OutgoingTransfers(const TransferLimits& limits, std::string local_address,
                                     Outbox& outbox)
    : limits_(limits),
      local_address_(std::move(local_address)),
      outbox_(outbox),
      ended_(EndedRemembered(limits)) {}

absl::Status OutgoingTransfers::Send(SendPart part, bool room, absl::Duration now) {
  if (ended_.Find(part.id) != nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("KV transfer {:016x}: has ended, its final event says why", part.id.value));
  }
  auto entry = transfers_.find(part.id);
  BALEEN_RETURN_IF_ERROR(CheckPart(part, entry == transfers_.end() ? nullptr : &entry->second));
  if (entry == transfers_.end()) {
    if (!room) {
      return absl::ResourceExhaustedError(
          fmt::format("KV transfer: {} transfers are under way, the limit", limits_.transfers_max));
    }
    entry = transfers_.emplace(part.id, Transfer{}).first;
    entry->second.peer = part.peer_address;
    outbox_.actions.push_back(SendFrame{
        part.peer_address,
        EncodeFrame(OfferFrame{
            .id = part.id, .block_bytes = limits_.block_bytes, .reply_address = local_address_})});
  }
  Transfer& transfer = entry->second;
  if (!transfer.given_up.ok()) return absl::OkStatus();  // its final event is under way
  transfer.deadline = now + limits_.lease;
  if (part.last) {
    transfer.closing = Closing{part.blocks_total, std::move(part.manifest)};
    CloseIfAllSent(entry);
    return absl::OkStatus();
  }
  if (part.block_number >= transfer.given.size()) {
    transfer.given.resize(part.block_number + 1, false);
    transfer.checksums.resize(part.block_number + 1, 0);
  }
  transfer.given[part.block_number] = true;
  transfer.waiting.push_back({part.block_number, part.block});
  if (transfer.blocks_reserved && part.block_number >= *transfer.blocks_reserved) {
    GiveUp(entry, DoesNotFit(part.block_number, *transfer.blocks_reserved), /*tell=*/true, now);
  }
  return absl::OkStatus();
}

absl::Status OutgoingTransfers::CheckPart(const SendPart& part, const Transfer* transfer) const {
  const auto invalid = [&]<typename... Args>(fmt::format_string<const Args&...> format,
                                             const Args&... arguments) {
    return absl::InvalidArgumentError(
        fmt::format("KV transfer {:016x}: {}", part.id.value, fmt::format(format, arguments...)));
  };
  if (part.id.value == 0) return invalid("id 0 names no transfer");
  const std::size_t address_bytes = part.peer_address.size();
  if (transfer == nullptr) {
    if (address_bytes == 0 || address_bytes > contract::kDataPlaneAddressBytesMax) {
      return invalid("a peer address of {} bytes, limits 1 and {}", address_bytes,
                     contract::kDataPlaneAddressBytesMax);
    }
  } else if (address_bytes != 0 && part.peer_address != transfer->peer) {
    return invalid("parts for two peers");
  }
  if (transfer != nullptr && transfer->closing) {
    if (part.last) return invalid("closed twice");
    if (part.block_number >= transfer->closing->blocks_total) {
      return invalid("block {} after a closing part with {} blocks", part.block_number,
                     transfer->closing->blocks_total);
    }
  }
  if (part.last) {
    const std::size_t given = transfer == nullptr ? 0 : transfer->given.size();
    if (!part.block.empty()) return invalid("the closing part carries no block");
    if (part.blocks_total == 0 || part.blocks_total > kTransferBlocksMax) {
      return invalid("{} blocks in total, limits 1 and {}", part.blocks_total, kTransferBlocksMax);
    }
    if (part.blocks_total < given) {
      return invalid("{} blocks in total, but block {} was sent", part.blocks_total, given - 1);
    }
    if (part.manifest.size() > limits_.manifest_bytes_max) {
      return invalid("a manifest of {} bytes, the limit is {}", part.manifest.size(),
                     limits_.manifest_bytes_max);
    }
    return absl::OkStatus();
  }
  if (part.block_number >= kTransferBlocksMax) {
    return invalid("block number {}, the limit is {}", part.block_number, kTransferBlocksMax);
  }
  if (part.block.size() != limits_.block_bytes) {
    return invalid("a block of {} bytes, must be {}", part.block.size(), limits_.block_bytes);
  }
  if (transfer != nullptr && part.block_number < transfer->given.size() &&
      transfer->given[part.block_number]) {
    return invalid("block {} sent twice", part.block_number);
  }
  return absl::OkStatus();
}

void OutgoingTransfers::Cancel(TransferId id, absl::Duration now) {
  if (const auto entry = transfers_.find(id); entry != transfers_.end()) {
    GiveUp(entry, absl::CancelledError("KV transfer: cancelled by the sender"), /*tell=*/true, now);
  }
}

void OutgoingTransfers::OnReady(const ReadyFrame& ready, absl::Duration now) {
  const auto entry = transfers_.find(ready.id);
  if (entry == transfers_.end()) {
    CountMissing(ready.id);
    return;
  }
  Transfer& transfer = entry->second;
  if (transfer.blocks_reserved) {
    outbox_.dropped.duplicate++;
    return;
  }
  if (!transfer.given_up.ok()) {
    outbox_.dropped.stale++;
    return;
  }
  transfer.blocks_reserved = ready.blocks;
  transfer.deadline = now + limits_.lease;
  if (transfer.given.size() > ready.blocks) {
    const auto highest = static_cast<std::uint32_t>(transfer.given.size() - 1);
    GiveUp(entry, DoesNotFit(highest, ready.blocks), /*tell=*/true, now);
  }
}

std::optional<BlockToSend> OutgoingTransfers::NextBlock() {
  auto entry = transfers_.upper_bound(served_last_);
  for (std::size_t tried = 0; tried < transfers_.size(); tried++, entry++) {
    if (entry == transfers_.end()) entry = transfers_.begin();
    auto& [id, transfer] = *entry;
    if (!transfer.given_up.ok() || !transfer.blocks_reserved || transfer.waiting.empty() ||
        transfer.blocks_in_flight >= kBlocksInFlightMax) {
      continue;
    }
    const Waiting next = transfer.waiting.front();
    transfer.waiting.pop_front();
    transfer.blocks_in_flight++;
    served_last_ = id;
    return BlockToSend{.id = id, .number = next.number, .block = next.block, .peer = transfer.peer};
  }
  return std::nullopt;
}

void OutgoingTransfers::OnBlockSent(TransferId id, std::uint32_t number, const absl::Status& sent,
                                    std::uint64_t checksum, absl::Duration now) {
  const auto entry = transfers_.find(id);
  BALEEN_CHECK(entry != transfers_.end(), "a transfer does not end before its blocks in flight");
  Transfer& transfer = entry->second;
  BALEEN_CHECK(transfer.blocks_in_flight > 0, "OnBlockSent after NextBlock");
  transfer.blocks_in_flight--;
  if (sent.ok()) {
    transfer.checksums[number] = checksum;
    transfer.blocks_sent++;
  }
  if (!transfer.given_up.ok()) {
    EndIfIdle(entry);
    return;
  }
  if (!sent.ok()) {
    GiveUp(entry, sent, /*tell=*/true, now);
    return;
  }
  transfer.deadline = now + limits_.lease;
  CloseIfAllSent(entry);
}

void OutgoingTransfers::CloseIfAllSent(Transfers::iterator entry) {
  auto& [id, transfer] = *entry;
  if (!transfer.closing || transfer.closing->sent) return;
  if (transfer.blocks_sent != transfer.closing->blocks_total) return;
  transfer.closing->sent = true;
  const std::string& manifest = transfer.closing->manifest;
  outbox_.actions.push_back(SendFrame{
      transfer.peer,
      EncodeFrame(ClosingFrame{.id = id,
                               .blocks_total = transfer.blocks_sent,
                               .checksum = CombinedChecksum(id, transfer.checksums, manifest),
                               .manifest = manifest})});
}

void OutgoingTransfers::OnHandedOver(const HandedOverFrame& handed_over) {
  const auto entry = transfers_.find(handed_over.id);
  if (entry == transfers_.end()) {
    CountMissing(handed_over.id);
    return;
  }
  Transfer& transfer = entry->second;
  if (!transfer.given_up.ok() || !transfer.closing || !transfer.closing->sent) {
    ++(transfer.given_up.ok() ? outbox_.dropped.unknown : outbox_.dropped.stale);
    return;
  }
  BALEEN_CHECK(transfer.blocks_in_flight == 0, "the closing frame goes after the last block");
  outbox_.events.push_back({.id = handed_over.id,
                            .kind = TransferEventKind::kHandedOver,
                            .status = absl::OkStatus(),
                            .bytes = transfer.blocks_sent * limits_.block_bytes});
  ended_.Remember(handed_over.id, {.status = absl::OkStatus(), .begun_here = true});
  transfers_.erase(entry);
}

void OutgoingTransfers::OnFailed(const FailedFrame& failed, absl::Duration now) {
  const auto entry = transfers_.find(failed.id);
  if (entry == transfers_.end()) {
    CountMissing(failed.id);
    return;
  }
  GiveUp(entry,
         absl::Status(failed.status.code(), fmt::format("KV transfer: the receiver gave up: {}",
                                                        MessageOf(failed.status))),
         /*tell=*/false, now);
}

void OutgoingTransfers::GiveUp(Transfers::iterator entry, const absl::Status& why, bool tell,
                               absl::Duration now) {
  auto& [id, transfer] = *entry;
  if (!transfer.given_up.ok()) return;
  transfer.given_up = why;
  transfer.deadline = now + CancelGrace(limits_);
  transfer.waiting.clear();
  if (tell) {
    outbox_.actions.push_back(
        SendFrame{transfer.peer, EncodeFrame(WithdrawnFrame{.id = id, .status = why})});
  }
  EndIfIdle(entry);
}

void OutgoingTransfers::EndIfIdle(Transfers::iterator entry) {
  auto& [id, transfer] = *entry;
  if (transfer.blocks_in_flight > 0) return;
  outbox_.events.push_back({.id = id,
                            .kind = TransferEventKind::kFailed,
                            .status = transfer.given_up,
                            .bytes = transfer.blocks_sent * limits_.block_bytes});
  ended_.Remember(id, {.status = transfer.given_up, .begun_here = true});
  transfers_.erase(entry);
}

void OutgoingTransfers::OnPeerLost(std::string_view peer, const absl::Status& why, bool tell,
                                   absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    const auto entry = next++;
    if (entry->second.peer == peer) GiveUp(entry, why, tell, now);
  }
}

void OutgoingTransfers::CancelAll(const absl::Status& why, absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    GiveUp(next++, why, /*tell=*/true, now);
  }
}

void OutgoingTransfers::OnTick(absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    const auto entry = next++;
    Transfer& transfer = entry->second;
    if (transfer.deadline > now) continue;
    const absl::Status lease_out = LeaseRanOut(limits_);
    if (transfer.blocks_in_flight > 0 && !transfer.closing_peer) {
      transfer.closing_peer = true;
      outbox_.actions.push_back(ClosePeer{transfer.peer, lease_out});
    }
    GiveUp(entry, lease_out, /*tell=*/true, now);
  }
}

void OutgoingTransfers::CountMissing(TransferId id) {
  ++(ended_.Find(id) != nullptr ? outbox_.dropped.stale : outbox_.dropped.unknown);
}

}  // namespace baleen::worker
