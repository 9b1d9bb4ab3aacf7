#include "worker/kv_transfer/ucx_kv_transfer.h"

#include <utility>
#include <variant>

#include "observability/base/status_macros.h"
#include "worker/kv_transfer/protocol/checksum.h"
#include "worker/kv_transfer/protocol/frames.h"

namespace baleen::worker {
namespace {

// Rounds without work before the thread sleeps: some tens of microseconds, about what waking up
// costs.
constexpr int kSpinRounds = 200;
// An idle thread looks at the leases this often, and gives UCX a chance to look after its
// connections.
constexpr absl::Duration kIdleWait = absl::Milliseconds(50);
// A busy one looks at them after this many rounds.
constexpr unsigned kTickRounds = 64;
// What the destructor grants to the last frames.
constexpr absl::Duration kFarewellLimit = absl::Milliseconds(200);

}  // namespace

absl::StatusOr<std::unique_ptr<UcxKvTransfer>> UcxKvTransfer::Create(UcxKvTransferOptions options) {
  BALEEN_RETURN_IF_ERROR(ValidateTransferLimits(options.limits));
  std::unique_ptr<UcxKvTransfer> transfer(new UcxKvTransfer(std::move(options)));
  BALEEN_ASSIGN_OR_RETURN(transfer->worker_, UcxWorker::Create(*transfer));
  transfer->address_ = transfer->worker_->address();
  transfer->table_.emplace(transfer->limits_, transfer->address_);
  transfer->thread_ = std::thread([self = transfer.get()] { self->Run(); });
  return transfer;
}

UcxKvTransfer::UcxKvTransfer(UcxKvTransferOptions options)
    : limits_(options.limits),
      clock_(options.clock == nullptr ? SystemClock() : *options.clock),
      wake_(std::move(options.wake)) {}

UcxKvTransfer::~UcxKvTransfer() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  worker_->Signal();
  thread_.join();
  worker_.reset();  // its last words go to the table
}

absl::Status UcxKvTransfer::Expect(contract::TransferId id,
                                   std::vector<std::span<std::byte>> blocks) {
  absl::Status status;
  {
    const std::lock_guard lock(mutex_);
    status = table_->Expect(id, std::move(blocks), Now());
  }
  worker_->Signal();
  WakeIfEvents();
  return status;
}

absl::Status UcxKvTransfer::Send(SendPart part) {
  absl::Status status;
  {
    const std::lock_guard lock(mutex_);
    status = table_->Send(std::move(part), Now());
  }
  worker_->Signal();
  WakeIfEvents();
  return status;
}

void UcxKvTransfer::Cancel(contract::TransferId id) {
  {
    const std::lock_guard lock(mutex_);
    table_->Cancel(id, Now());
  }
  worker_->Signal();
  WakeIfEvents();
}

std::vector<TransferEvent> UcxKvTransfer::Poll() {
  const std::lock_guard lock(mutex_);
  awake_ = false;
  return table_->TakeEvents();
}

DroppedFrames UcxKvTransfer::Dropped() const {
  const std::lock_guard lock(mutex_);
  return table_->dropped();
}

std::string UcxKvTransfer::Lanes() const {
  const std::lock_guard lock(mutex_);
  return lanes_;
}

void UcxKvTransfer::WakeIfEvents() {
  {
    const std::lock_guard lock(mutex_);
    if (awake_ || !table_->HasEvents()) return;
    awake_ = true;
  }
  if (wake_) wake_();
}

void UcxKvTransfer::Run() {
  int idle_rounds = 0;
  for (unsigned round = 0; !stopping_; round = (round + 1) % kTickRounds) {
    bool busy = worker_->Progress();
    if (idle_rounds == 0 && round == 0) Tick();
    busy |= CarryOutActions();
    busy |= SendNextBlock();
    WakeIfEvents();
    if (busy) {
      idle_rounds = 0;
    } else if (++idle_rounds > kSpinRounds) {
      worker_->Wait(kIdleWait);
      Tick();
      idle_rounds = 0;
    }
  }
  {
    const std::lock_guard lock(mutex_);
    table_->CancelAll(absl::CancelledError("KV transfer: the endpoint shuts down"), Now());
  }
  CarryOutActions();
  worker_->Flush(kFarewellLimit);
}

bool UcxKvTransfer::CarryOutActions() {
  std::vector<Action> actions;
  {
    const std::lock_guard lock(mutex_);
    actions = table_->TakeActions();
    if (lanes_.empty()) lanes_ = worker_->lanes();
  }
  for (Action& action : actions) {
    if (auto* send = std::get_if<SendFrame>(&action)) {
      worker_->SendFrame(send->peer, std::move(send->frame));
    } else {
      worker_->ClosePeer(std::get<ClosePeer>(action).peer);
    }
  }
  return !actions.empty();
}

// One block a round, so that what has been sent makes progress while the next one is read for its
// checksum.
bool UcxKvTransfer::SendNextBlock() {
  std::optional<BlockToSend> block;
  {
    const std::lock_guard lock(mutex_);
    block = table_->NextBlock();
  }
  if (!block) return false;
  const std::uint64_t checksum = Checksum(block->block);
  std::string header = EncodeFrame(BlockHeader{.id = block->id,
                                               .number = block->number,
                                               .length = block->block.size(),
                                               .checksum = checksum});
  worker_->SendBlock(*std::move(block), std::move(header), checksum);
  return true;
}

void UcxKvTransfer::Tick() {
  const std::lock_guard lock(mutex_);
  table_->OnTick(Now());
}

void UcxKvTransfer::OnFrame(std::span<const std::byte> frame) {
  const std::lock_guard lock(mutex_);
  table_->OnFrame(frame, Now());
}

std::optional<BlockToReceive> UcxKvTransfer::OnBlock(std::span<const std::byte> header,
                                                     std::size_t length) {
  const std::lock_guard lock(mutex_);
  return table_->BeginBlock(header, length);
}

void UcxKvTransfer::OnBlockReceived(const BlockToReceive& block, const absl::Status& status) {
  const std::uint64_t checksum = status.ok() ? Checksum(block.memory) : 0;
  const std::lock_guard lock(mutex_);
  table_->EndBlock(block.header, status, checksum, Now());
}

void UcxKvTransfer::OnBlockSent(const BlockToSend& block, const absl::Status& status,
                                std::uint64_t checksum) {
  const std::lock_guard lock(mutex_);
  table_->OnBlockSent(block, status, checksum, Now());
}

void UcxKvTransfer::OnPeerLost(const std::string& peer, const absl::Status& why) {
  const std::lock_guard lock(mutex_);
  table_->OnPeerLost(peer, why, Now());
}

}  // namespace baleen::worker
