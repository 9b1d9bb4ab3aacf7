#include "worker/kv_transfer/protocol/incoming_transfers.h"

#include <fmt/format.h>

#include <algorithm>
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

absl::Status ParkedOut(const TransferLimits& limits) {
  return absl::ResourceExhaustedError(fmt::format(
      "KV transfer: {} offers are parked at the receiver, the limit", limits.offers_parked_max));
}

}  // namespace

IncomingTransfers::IncomingTransfers(const TransferLimits& limits, Outbox& outbox)
    : limits_(limits), outbox_(outbox), ended_(EndedRemembered(limits)) {}

absl::Status IncomingTransfers::Expect(TransferId id, std::vector<std::span<std::byte>> blocks,
                                       bool room, absl::Duration now) {
  if (id.value == 0) return absl::InvalidArgumentError("KV transfer: id 0 names no transfer");
  BALEEN_RETURN_IF_ERROR(CheckBlocks(blocks));
  const EndedTransfers::Ending* ended = ended_.Find(id);
  if (transfers_.contains(id) || (ended != nullptr && ended->begun_here)) {
    return absl::AlreadyExistsError(fmt::format("KV transfer {:016x}: expected before", id.value));
  }
  if (!room) {
    return absl::ResourceExhaustedError(
        fmt::format("KV transfer: {} transfers are under way, the limit", limits_.transfers_max));
  }
  if (ended != nullptr) {
    const absl::Status why = ended->status;
    ended_.Remember(id, {.status = why, .begun_here = true});
    outbox_.events.push_back({.id = id, .kind = TransferEventKind::kFailed, .status = why});
    return absl::OkStatus();
  }
  Transfer& transfer = transfers_[id];
  transfer.states.resize(blocks.size(), BlockState::kMissing);
  transfer.checksums.resize(blocks.size(), 0);
  transfer.blocks = std::move(blocks);
  transfer.deadline = now + limits_.lease;
  if (auto offer = parked_.extract(id); !offer.empty()) {
    Accept(id, transfer, std::move(offer.mapped().peer), now);
  }
  return absl::OkStatus();
}

absl::Status IncomingTransfers::CheckBlocks(const std::vector<std::span<std::byte>>& blocks) const {
  if (blocks.empty() || blocks.size() > kTransferBlocksMax) {
    return absl::InvalidArgumentError(
        fmt::format("KV transfer: {} blocks, limits 1 and {}", blocks.size(), kTransferBlocksMax));
  }
  for (const auto& block : blocks) {
    if (block.size() != limits_.block_bytes) {
      return absl::InvalidArgumentError(fmt::format("KV transfer: a block of {} bytes, must be {}",
                                                    block.size(), limits_.block_bytes));
    }
  }
  return absl::OkStatus();
}

void IncomingTransfers::Cancel(TransferId id, absl::Duration now) {
  if (const auto entry = transfers_.find(id); entry != transfers_.end()) {
    GiveUp(entry, absl::CancelledError("KV transfer: cancelled by the receiver"), /*tell=*/true,
           now);
  }
}

void IncomingTransfers::OnOffer(const OfferFrame& offer, absl::Duration now) {
  if (const EndedTransfers::Ending* ended = ended_.Find(offer.id); ended != nullptr) {
    outbox_.dropped.stale++;
    if (!ended->status.ok()) Refuse(offer.id, offer.reply_address, ended->status);
    return;
  }
  const auto entry = transfers_.find(offer.id);
  const bool known = entry != transfers_.end() && !entry->second.peer.empty();
  if (known || parked_.contains(offer.id)) {
    outbox_.dropped.duplicate++;
    return;
  }
  absl::Status fits = CheckOffer(offer);
  if (entry != transfers_.end()) {
    if (fits.ok()) {
      Accept(offer.id, entry->second, offer.reply_address, now);
    } else {
      entry->second.peer = offer.reply_address;
      GiveUp(entry, fits, /*tell=*/true, now);
    }
    return;
  }
  if (fits.ok() && !MakeRoomFor(offer.reply_address)) fits = ParkedOut(limits_);
  if (fits.ok()) {
    parked_[offer.id] = {.peer = offer.reply_address, .deadline = now + limits_.lease};
  } else {
    RefuseUnexpected(offer.id, offer.reply_address, fits);
  }
}

// When all places are taken, the peer that holds most of them gives its latest one up, unless that
// only turned the tables: a peer that floods this one costs the others nothing.
bool IncomingTransfers::MakeRoomFor(const std::string& peer) {
  if (parked_.size() < limits_.offers_parked_max) return true;
  std::map<std::string, std::size_t> places;
  for (const auto& [id, offer] : parked_) ++places[offer.peer];
  const std::size_t own = places[peer];
  const auto most = std::ranges::max_element(places, {}, [](const auto& of) { return of.second; });
  if (most->second <= own + 1) return false;
  auto latest = parked_.end();
  for (auto entry = parked_.begin(); entry != parked_.end(); ++entry) {
    if (entry->second.peer != most->first) continue;
    if (latest == parked_.end() || entry->second.deadline >= latest->second.deadline) {
      latest = entry;
    }
  }
  RefuseUnexpected(latest->first, latest->second.peer, ParkedOut(limits_));
  parked_.erase(latest);
  return true;
}

absl::Status IncomingTransfers::CheckOffer(const OfferFrame& offer) const {
  if (offer.version != kTransferProtocolVersion) {
    return absl::FailedPreconditionError(
        fmt::format("KV transfer: the sender speaks protocol version {}, the receiver {}",
                    offer.version, kTransferProtocolVersion));
  }
  if (offer.block_bytes != limits_.block_bytes) {
    return absl::FailedPreconditionError(
        fmt::format("KV transfer: the sender's blocks have {} bytes, the receiver's {}",
                    offer.block_bytes, limits_.block_bytes));
  }
  return absl::OkStatus();
}

void IncomingTransfers::Accept(TransferId id, Transfer& transfer, std::string peer,
                               absl::Duration now) {
  transfer.peer = std::move(peer);
  transfer.deadline = now + limits_.lease;
  const auto blocks = static_cast<std::uint32_t>(transfer.blocks.size());
  outbox_.actions.push_back(
      SendFrame{transfer.peer, EncodeFrame(ReadyFrame{.id = id, .blocks = blocks})});
}

void IncomingTransfers::Refuse(TransferId id, const std::string& peer, const absl::Status& why) {
  outbox_.actions.push_back(SendFrame{peer, EncodeFrame(FailedFrame{.id = id, .status = why})});
}

// Of an offer that no Expect has asked for: one that comes later fails with `why`.
void IncomingTransfers::RefuseUnexpected(TransferId id, const std::string& peer,
                                         const absl::Status& why) {
  Refuse(id, peer, why);
  ended_.Remember(id, {.status = why});
}

void IncomingTransfers::OnWithdrawn(const WithdrawnFrame& withdrawn, absl::Duration now) {
  const absl::Status why(withdrawn.status.code(), fmt::format("KV transfer: the sender gave up: {}",
                                                              MessageOf(withdrawn.status)));
  if (const auto entry = transfers_.find(withdrawn.id); entry != transfers_.end()) {
    GiveUp(entry, why, /*tell=*/false, now);
  } else if (parked_.erase(withdrawn.id) > 0) {
    ended_.Remember(withdrawn.id, {.status = why});
  } else {
    CountMissing(withdrawn.id);
  }
}

std::optional<std::span<std::byte>> IncomingTransfers::BeginBlock(const BlockHeader& header) {
  const auto entry = transfers_.find(header.id);
  if (entry == transfers_.end()) {
    CountMissing(header.id);
    return std::nullopt;
  }
  Transfer& transfer = entry->second;
  if (!transfer.given_up.ok()) {
    outbox_.dropped.stale++;
    return std::nullopt;
  }
  if (transfer.peer.empty()) {
    outbox_.dropped.unknown++;
    return std::nullopt;
  }
  const std::size_t blocks =
      transfer.closing ? transfer.closing->blocks_total : transfer.blocks.size();
  if (header.number >= blocks || header.length != limits_.block_bytes) {
    outbox_.dropped.wrong_shape++;
    return std::nullopt;
  }
  if (transfer.states[header.number] != BlockState::kMissing) {
    outbox_.dropped.duplicate++;
    return std::nullopt;
  }
  transfer.states[header.number] = BlockState::kInFlight;
  transfer.blocks_in_flight++;
  return transfer.blocks[header.number];
}

void IncomingTransfers::EndBlock(const BlockHeader& header, const absl::Status& received,
                                 std::uint64_t checksum, absl::Duration now) {
  const auto entry = transfers_.find(header.id);
  BALEEN_CHECK(entry != transfers_.end(), "a transfer does not end before its blocks in flight");
  Transfer& transfer = entry->second;
  BALEEN_CHECK(transfer.states[header.number] == BlockState::kInFlight,
               "EndBlock after BeginBlock");
  transfer.states[header.number] = BlockState::kMissing;
  transfer.blocks_in_flight--;
  if (!transfer.given_up.ok()) {
    EndIfIdle(entry);
    return;
  }
  if (!received.ok()) {
    GiveUp(entry, received, /*tell=*/true, now);
    return;
  }
  if (checksum != header.checksum) {
    GiveUp(entry,
           absl::DataLossError(
               fmt::format("KV transfer: block {} does not match its checksum", header.number)),
           /*tell=*/true, now);
    return;
  }
  transfer.states[header.number] = BlockState::kHere;
  transfer.checksums[header.number] = checksum;
  transfer.blocks_here++;
  transfer.deadline = now + limits_.lease;
  CompleteIfAllHere(entry, now);
}

void IncomingTransfers::OnClosing(const ClosingFrame& closing, absl::Duration now) {
  const auto entry = transfers_.find(closing.id);
  if (entry == transfers_.end() || entry->second.peer.empty()) {
    CountMissing(closing.id);
    return;
  }
  Transfer& transfer = entry->second;
  if (!transfer.given_up.ok() || transfer.closing) {
    ++(transfer.closing ? outbox_.dropped.duplicate : outbox_.dropped.stale);
    return;
  }
  const std::size_t reserved = transfer.blocks.size();
  if (closing.blocks_total == 0 || closing.blocks_total > reserved) {
    GiveUp(entry,
           absl::FailedPreconditionError(fmt::format(
               "KV transfer: the sender closes with {} blocks, the receiver has reserved {}",
               closing.blocks_total, reserved)),
           /*tell=*/true, now);
    return;
  }
  if (closing.manifest.size() > limits_.manifest_bytes_max) {
    GiveUp(entry,
           absl::FailedPreconditionError(
               fmt::format("KV transfer: a manifest of {} bytes, the receiver's limit is {}",
                           closing.manifest.size(), limits_.manifest_bytes_max)),
           /*tell=*/true, now);
    return;
  }
  const auto beyond = transfer.states.begin() + closing.blocks_total;
  if (std::any_of(beyond, transfer.states.end(),
                  [](BlockState state) { return state != BlockState::kMissing; })) {
    GiveUp(entry,
           absl::DataLossError(fmt::format("KV transfer: a block beyond the total of {} came",
                                           closing.blocks_total)),
           /*tell=*/true, now);
    return;
  }
  transfer.closing = closing;
  transfer.deadline = now + limits_.lease;
  CompleteIfAllHere(entry, now);
}

void IncomingTransfers::CompleteIfAllHere(Transfers::iterator entry, absl::Duration now) {
  auto& [id, transfer] = *entry;
  if (!transfer.closing || transfer.blocks_here != transfer.closing->blocks_total) return;
  BALEEN_CHECK(transfer.blocks_in_flight == 0, "no block beyond the total is let in");
  const auto checksums = std::span(transfer.checksums).first(transfer.blocks_here);
  if (CombinedChecksum(id, checksums, transfer.closing->manifest) != transfer.closing->checksum) {
    GiveUp(entry, absl::DataLossError("KV transfer: the manifest does not match the blocks"),
           /*tell=*/true, now);
    return;
  }
  outbox_.actions.push_back(SendFrame{transfer.peer, EncodeFrame(HandedOverFrame{.id = id})});
  outbox_.events.push_back({.id = id,
                            .kind = TransferEventKind::kReceived,
                            .status = absl::OkStatus(),
                            .manifest = std::move(transfer.closing->manifest),
                            .bytes = transfer.blocks_here * limits_.block_bytes});
  ended_.Remember(id, {.status = absl::OkStatus(), .begun_here = true});
  transfers_.erase(entry);
}

void IncomingTransfers::GiveUp(Transfers::iterator entry, const absl::Status& why, bool tell,
                               absl::Duration now) {
  auto& [id, transfer] = *entry;
  if (!transfer.given_up.ok()) return;
  transfer.given_up = why;
  transfer.deadline = now + CancelGrace(limits_);
  if (tell && !transfer.peer.empty()) Refuse(id, transfer.peer, why);
  EndIfIdle(entry);
}

void IncomingTransfers::EndIfIdle(Transfers::iterator entry) {
  auto& [id, transfer] = *entry;
  if (transfer.blocks_in_flight > 0) return;
  outbox_.events.push_back({.id = id,
                            .kind = TransferEventKind::kFailed,
                            .status = transfer.given_up,
                            .bytes = transfer.blocks_here * limits_.block_bytes});
  ended_.Remember(id, {.status = transfer.given_up, .begun_here = true});
  transfers_.erase(entry);
}

void IncomingTransfers::ForcePeer(Transfer& transfer, const absl::Status& why) {
  if (transfer.blocks_in_flight == 0 || transfer.closing_peer) return;
  transfer.closing_peer = true;
  outbox_.actions.push_back(ClosePeer{transfer.peer, why});
}

void IncomingTransfers::OnPeerLost(std::string_view peer, const absl::Status& why, bool tell,
                                   absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    const auto entry = next++;
    if (entry->second.peer == peer) GiveUp(entry, why, tell, now);
  }
  for (auto next = parked_.begin(); next != parked_.end();) {
    const auto entry = next++;
    if (entry->second.peer != peer || tell) continue;
    ended_.Remember(entry->first, {.status = why});
    parked_.erase(entry);
  }
}

void IncomingTransfers::CancelAll(const absl::Status& why, absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    GiveUp(next++, why, /*tell=*/true, now);
  }
  for (const auto& [id, offer] : parked_) Refuse(id, offer.peer, why);
  parked_.clear();
}

void IncomingTransfers::OnTick(absl::Duration now) {
  for (auto next = transfers_.begin(); next != transfers_.end();) {
    const auto entry = next++;
    Transfer& transfer = entry->second;
    if (transfer.deadline > now) continue;
    const absl::Status lease_out = LeaseRanOut(limits_);
    ForcePeer(transfer, lease_out);
    GiveUp(entry, lease_out, /*tell=*/true, now);
  }
  for (auto next = parked_.begin(); next != parked_.end();) {
    const auto entry = next++;
    if (entry->second.deadline > now) continue;
    RefuseUnexpected(entry->first, entry->second.peer, LeaseRanOut(limits_));
    parked_.erase(entry);
  }
}

void IncomingTransfers::CountMissing(TransferId id) {
  ++(ended_.Find(id) != nullptr ? outbox_.dropped.stale : outbox_.dropped.unknown);
}

}  // namespace baleen::worker
