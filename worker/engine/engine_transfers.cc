// The engine's dealings with the data plane: what it begins, and what comes back.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "proto/contract/status.h"
#include "worker/engine/engine.h"
#include "worker/engine/rules/handover.h"

namespace baleen::worker {
namespace {

using contract::MakeStatus;
using contract::Reason;

// A full data plane is a full worker: the router may try elsewhere. Everything else is a transfer
// that failed.
absl::Status TransferStatus(const absl::Status& status) {
  const Reason reason =
      absl::IsResourceExhausted(status) ? Reason::kQueueFull : Reason::kTransferFailed;
  return MakeStatus(reason, std::string(status.message()));
}

}  // namespace

void Engine::Expect(Sequence& sequence) {
  std::vector<std::span<std::byte>> blocks(PromptBlocks(sequence.start));
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = sequence.blocks.bytes(i);
  const contract::TransferId id = sequence.start.transfer;
  const absl::Status status = transfers_.contains(id)
                                  ? absl::AlreadyExistsError("its transfer id is in use")
                                  : transfer_->Expect(id, std::move(blocks));
  if (!status.ok()) {
    End(sequence, EndReason::kError, TransferStatus(status));
    return;
  }
  Begin(sequence);
}

void Engine::Begin(Sequence& sequence) {
  transfers_.emplace(sequence.start.transfer,
                     OpenTransfer{.sequence = &sequence, .begun = clock_.Monotonic()});
  sequence.transfer_open = true;
}

// Offers blocks up to `blocks_ready` that have not been offered yet.
void Engine::Offer(Sequence& sequence, std::uint32_t blocks_ready) {
  while (sequence.blocks_offered < blocks_ready && sequence.phase != Phase::kEnded) {
    const std::uint32_t number = sequence.blocks_offered++;
    Send(sequence, {.block_number = number, .block = sequence.blocks.bytes(number)});
  }
}

// The closing part: all KV of the prompt is offered.
void Engine::Close(Sequence& sequence) {
  if (sequence.phase == Phase::kEnded) return;
  const Handover handover{.prompt_tokens = sequence.prompt_tokens(),
                          .first_token = sequence.last_token,
                          .sampling_position = sequence.prompt_tokens(),
                          .prompt_hash = HashPrompt(sequence.start.prompt),
                          .model_hash = model_hash_};
  Send(sequence, {.last = true,
                  .blocks_total = PromptBlocks(sequence.start),
                  .manifest = Serialize(handover)});
}

void Engine::Send(Sequence& sequence, SendPart part) {
  part.id = sequence.start.transfer;
  part.peer_address = sequence.start.peer_address;
  const bool id_taken = !sequence.transfer_open && transfers_.contains(part.id);
  const absl::Status status = id_taken ? absl::AlreadyExistsError("its transfer id is in use")
                                       : transfer_->Send(std::move(part));
  if (!status.ok()) {
    End(sequence, EndReason::kError, TransferStatus(status));
  } else if (!sequence.transfer_open) {
    Begin(sequence);
  }
}

bool Engine::TakeTransferEvents() {
  if (transfer_ == nullptr) return false;
  const std::vector<TransferEvent> events = transfer_->Poll();
  for (const TransferEvent& event : events) Finish(event);
  return !events.empty();
}

void Engine::Finish(const TransferEvent& event) {
  auto node = transfers_.extract(event.id);
  if (node.empty()) {
    log::Warning("event of an unknown transfer", {{"transfer", event.id.value}});
    return;
  }
  const OpenTransfer& open = node.mapped();
  if (event.kind == TransferEventKind::kFailed) {
    // Those that were given up, here or there, because their request had ended, did not fail.
    const bool given_up = open.sequence == nullptr || absl::IsCancelled(event.status);
    if (!given_up) metrics_.kv_transfer_failures_total.Add();
  } else {
    const bool sent = event.kind == TransferEventKind::kHandedOver;
    (sent ? metrics_.kv_transfer_sent_bytes_total : metrics_.kv_transfer_received_bytes_total)
        .Add(static_cast<double>(event.bytes));
    metrics_.kv_transfer_seconds.Observe(absl::ToDoubleSeconds(clock_.Monotonic() - open.begun));
  }
  if (open.sequence != nullptr) {
    open.sequence->transfer_open = false;
    Continue(*open.sequence, event);
  }
}

// The transfer of a live sequence has had its final event.
void Engine::Continue(Sequence& sequence, const TransferEvent& event) {
  if (event.kind == TransferEventKind::kFailed) {
    if (sequence.start.leg == Leg::kDecode && absl::IsCancelled(event.status)) {
      // The prefill rank has ended the request, perhaps with the reply's first token, and says so
      // itself: this reservation did not fail, nobody needs it.
      End(sequence, EndReason::kCancelled);
      return;
    }
    End(sequence, EndReason::kError,
        MakeStatus(Reason::kTransferFailed, std::string(event.status.message())));
    return;
  }
  sequence.transfer_bytes = event.bytes;
  if (event.kind == TransferEventKind::kHandedOver) {
    BALEEN_CHECK(sequence.phase == Phase::kHandingOver, "only a closed transfer is handed over");
    End(sequence, EndReason::kHandedOver);
    return;
  }
  BALEEN_CHECK(sequence.phase == Phase::kReceiving, "only an expected transfer is received");
  const absl::StatusOr<Handover> handover = ParseHandover(event.manifest);
  const absl::Status fits = handover.ok()
                                ? VerifyHandover(*handover, sequence.start.prompt, model_.info())
                                : handover.status();
  if (!fits.ok()) {
    End(sequence, EndReason::kError,
        MakeStatus(Reason::kTransferFailed, std::string(fits.message())));
    return;
  }
  sequence.phase = Phase::kDecoding;
  sequence.computed = sequence.prompt_tokens();
  sequence.last_token = handover->first_token;
  sequence.reply_next = 1;
  EndIfComplete(sequence, handover->first_token);
}

}  // namespace baleen::worker
