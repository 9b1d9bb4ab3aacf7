#include "worker/expert_parallel/ucx/ucx_group.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <new>
#include <random>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

// How long goodbyes may take to leave, and to be heard: by whoever is not computing.
constexpr absl::Duration kFlushMax = absl::Milliseconds(200);
constexpr absl::Duration kFarewellMax = absl::Milliseconds(500);

std::int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Equal for processes that can have memory in common: the kernel's boot and the namespace of shared
// memory.
std::uint64_t MachineId() {
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  struct stat space {};
  if (stat("/proc/self/ns/ipc", &space) != 0) space.st_ino = 0;
  boot += fmt::format("/{}", space.st_ino);
  std::uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const char c : boot) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

std::uint64_t RandomKey() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

// Address space that nothing else is mapped into; what Take has not handed out is given back.
class AddressRange {
 public:
  static absl::StatusOr<AddressRange> Reserve(std::size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          fmt::format("all-to-all: no {} bytes of address space: {}", bytes, std::strerror(errno)));
    }
    return AddressRange(static_cast<std::byte*>(at), bytes);
  }
  AddressRange(AddressRange&& other) noexcept
      : at_(other.at_), left_(std::exchange(other.left_, 0)) {}
  AddressRange& operator=(AddressRange&&) = delete;
  ~AddressRange() {
    if (left_ > 0) munmap(at_, left_);
  }
  std::byte* at() const { return at_; }
  void Take(std::size_t bytes) {
    at_ += bytes;
    left_ -= bytes;
  }

 private:
  AddressRange(std::byte* at, std::size_t bytes) : at_(at), left_(bytes) {}
  std::byte* at_;
  std::size_t left_;
};

}  // namespace

UcxGroup::UcxGroup(const UcxEndpointOptions& options)
    : options_(options), shape_(options.shape), peers_(options.shape.ranks) {}

absl::StatusOr<std::unique_ptr<UcxGroup>> UcxGroup::Create(const UcxEndpointOptions& options) {
  BALEEN_RETURN_IF_ERROR(CheckAllToAllShape(options.shape));
  BALEEN_CHECK(options.rank >= 0 && options.rank < options.shape.ranks, "a rank of the group");
  std::unique_ptr<UcxGroup> group(new UcxGroup(options));
  BALEEN_RETURN_IF_ERROR(group->Start());
  return group;
}

absl::Status UcxGroup::Start() {
  BALEEN_ASSIGN_OR_RETURN(layout_, MailboxLayout::Of(shape_));
  BALEEN_ASSIGN_OR_RETURN(fabric_, UcxFabric::Create(*this, options_.transports));
  self_ = {.rank = options_.rank, .ranks = shape_.ranks, .key = RandomKey()};
  card_ = {.rank = self_.rank,
           .key = self_.key,
           .machine = MachineId(),
           .shape = shape_,
           .ucx_address = fabric_->address()};
  address_ = WriteJoinCard(card_);
  if (address_.size() > kJoinCardBytesMax) {
    return absl::FailedPreconditionError(
        fmt::format("all-to-all: the address of this rank has {} bytes, above {}: choose fewer "
                    "network devices (UCX_NET_DEVICES)",
                    address_.size(), kJoinCardBytesMax));
  }
  for (auto& outputs : expected_.outputs) outputs.resize(shape_.ranks);
  return absl::OkStatus();
}

UcxGroup::~UcxGroup() {
  if (fabric_ == nullptr) return;
  if (broken_.ok()) {
    // A goodbye overtakes rows that are still being fetched, and the end would take them away.
    fabric_->Drain(shape_.wait_max);
    for (Peer& peer : peers_) peer.ready = false;
    SayGoodbye(Farewell::kLeft, 0);
    // What has only left, an early end of the connection can take back.
    AwaitReady();
  }
  fabric_->Flush(kFlushMax);
}

// Waits until the peers have heard the goodbye.
void UcxGroup::AwaitReady() {
  const std::int64_t end = NowNs() + absl::ToInt64Nanoseconds(kFarewellMax);
  for (const Peer& peer : peers_) {
    while (peer.connected && !peer.gone && !peer.ready && NowNs() < end) {
      Sleep(absl::Nanoseconds(end - NowNs()));
    }
  }
}

absl::Status UcxGroup::Connect(std::uint64_t epoch, std::span<const std::string> addresses) {
  BALEEN_CHECK(inboxes_ == nullptr, "an endpoint connects once");
  self_.epoch = epoch;
  if (addresses.size() != peers_.size()) {
    return Break(absl::InvalidArgumentError(
        fmt::format("all-to-all: {} addresses for {} ranks", addresses.size(), peers_.size())));
  }
  std::vector<JoinCard> cards;
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    absl::StatusOr<JoinCard> card = ReadJoinCard(addresses[rank], rank);
    absl::Status fits = card.ok() ? CheckJoinCard(*card, card_) : card.status();
    if (fits.ok() && rank == self_.rank && card->key != self_.key) {
      fits = absl::InvalidArgumentError(
          fmt::format("all-to-all: the address of rank {} is that of another process", rank));
    }
    if (!fits.ok()) return Break(fits);
    cards.push_back(*std::move(card));
  }
  absl::Status status = AllocateMailboxes(cards);
  if (!status.ok()) inboxes_ = nullptr;
  if (status.ok()) status = ConnectPeers(cards);
  if (status.ok()) status = AwaitHellos();
  if (!status.ok()) return Break(status);
  all_mapped_ = mapped_peers() == shape_.ranks - 1;
  log::Debug("group connected", {{"rank", self_.rank},
                                 {"ranks", shape_.ranks},
                                 {"epoch", self_.epoch},
                                 {"mapped_peers", mapped_peers()}});
  return absl::OkStatus();
}

absl::Status UcxGroup::AllocateMailboxes(const std::vector<JoinCard>& cards) {
  BALEEN_ASSIGN_OR_RETURN(AddressRange range, AddressRange::Reserve(layout_.stride * cards.size()));
  inboxes_ = range.at();
  for (const JoinCard& card : cards) {
    Peer& peer = peers_[card.rank];
    if (card.rank != self_.rank && Shares(card)) {
      BALEEN_ASSIGN_OR_RETURN(SharedMemory memory,
                              SharedMemory::Create(layout_.stride, range.at()));
      peer.mailbox.emplace(std::move(memory));
    } else {
      BALEEN_RETURN_IF_ERROR(
          fabric_->Allocate(layout_.stride, card.rank != self_.rank, range.at()).status());
    }
    range.Take(layout_.stride);
    new (InboxBytes(card.rank)) Mailbox{.key = self_.key};
  }
  const std::size_t output_bytes = MailboxLayout::kHeaderBytes + kLanes * layout_.output_lane_bytes;
  BALEEN_ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Create(output_bytes));
  outputs_memory_.emplace(std::move(memory));
  std::memcpy(outputs_memory_->data(), &self_.key, sizeof(self_.key));
  outputs_ = outputs_memory_->data() + MailboxLayout::kHeaderBytes;
  peers_[self_.rank].outbox = &InboxOf(self_.rank);
  peers_[self_.rank].outputs = outputs_;
  return absl::OkStatus();
}

bool UcxGroup::Shares(const JoinCard& card) const {
  return options_.share_memory && card.machine == card_.machine;
}

absl::Status UcxGroup::ConnectPeers(const std::vector<JoinCard>& cards) {
  for (const JoinCard& card : cards) {
    Peer& peer = peers_[card.rank];
    peer.key = card.key;
    if (card.rank == self_.rank) continue;
    BALEEN_RETURN_IF_ERROR(fabric_->Connect(card.rank, card.ucx_address));
    peer.connected = true;
  }
  // Only now: whoever has all hellos may begin with a step.
  for (std::int32_t rank = 0; rank < shape_.ranks; ++rank) {
    if (rank != self_.rank) SendHello(rank);
  }
  return absl::OkStatus();
}

void UcxGroup::SendHello(std::int32_t rank) {
  Peer& peer = peers_[rank];
  ExchangeFrame& frame = peer.hello_out.frame = NewFrame(FrameKind::kHello, rank);
  if (peer.mailbox) {
    frame.number = getpid();
    frame.rows = peer.mailbox->fd();
    frame.entries = outputs_memory_->fd();
  }
  fabric_->Send(rank, peer.hello_out, {});
}

void UcxGroup::SendReady(std::int32_t rank) {
  OutgoingMessage& message = peers_[rank].ready_out;
  if (message.in_flight) return;
  message.frame = NewFrame(FrameKind::kReady, rank);
  fabric_->Send(rank, message, {});
}

absl::Status UcxGroup::AwaitHellos() {
  const std::int64_t end = NowNs() + absl::ToInt64Nanoseconds(options_.connect_max);
  for (std::int32_t rank = 0; rank < shape_.ranks;) {
    const Peer& peer = peers_[rank];
    if (rank == self_.rank || (peer.hello && peer.ready)) {
      ++rank;
      continue;
    }
    BALEEN_RETURN_IF_ERROR(Broken());
    if (peer.gone) {
      return absl::UnavailableError(
          fmt::format("all-to-all: rank {} can not be reached: {}", rank,
                      peer.lost_why.empty() ? "it has gone" : peer.lost_why));
    }
    const std::int64_t left_ns = end - NowNs();
    if (left_ns <= 0) {
      return absl::DeadlineExceededError(fmt::format("all-to-all: waited {} for rank {} to connect",
                                                     absl::FormatDuration(options_.connect_max),
                                                     rank));
    }
    Sleep(absl::Nanoseconds(left_ns));
  }
  return absl::OkStatus();
}

// Takes the memory of a peer of this machine in, if it is what the peer's address spoke of.
void UcxGroup::MapPeer(const ExchangeFrame& hello) {
  Peer& peer = peers_[hello.rank];
  peer.hello = true;
  if (!peer.mailbox || hello.number == 0) return;
  const auto open = [&](std::uint32_t fd, std::size_t bytes) {
    auto memory = SharedMemory::Open(static_cast<pid_t>(hello.number), static_cast<int>(fd), bytes);
    if (memory && std::memcmp(memory->data(), &peer.key, sizeof(peer.key)) != 0) memory.reset();
    return memory;
  };
  auto mailbox = open(hello.rows, layout_.stride);
  auto outputs =
      open(hello.entries, MailboxLayout::kHeaderBytes + kLanes * layout_.output_lane_bytes);
  if (!mailbox || !outputs) return;
  peer.outbox = reinterpret_cast<Mailbox*>(mailbox->data());
  peer.outputs = outputs->data() + MailboxLayout::kHeaderBytes;
  peer.its_mailbox.emplace(*std::move(mailbox));
  peer.its_outputs.emplace(*std::move(outputs));
}

std::int32_t UcxGroup::mapped_peers() const {
  return static_cast<std::int32_t>(std::ranges::count_if(
      peers_, [&](const Peer& peer) { return peer.connected && peer.outbox != nullptr; }));
}

IncomingMessage* UcxGroup::OnMessage(std::span<const std::byte> header, std::size_t payload_bytes) {
  const std::optional<ExchangeFrame> frame = ReadFrame(header, self_);
  if (!frame || inboxes_ == nullptr) {
    ++dropped_frames_;
    return nullptr;
  }
  Peer& peer = peers_[frame->rank];
  if (frame->epoch != self_.epoch) {
    ++dropped_frames_;
    if (frame->kind == FrameKind::kHello && violation_.ok()) {
      violation_ = absl::FailedPreconditionError(
          fmt::format("all-to-all: rank {} is in epoch {}, this rank {} in epoch {}", frame->rank,
                      frame->epoch, self_.rank, self_.epoch));
    }
    return nullptr;
  }
  if (frame->kind == FrameKind::kWake) return nullptr;
  if (frame->kind == FrameKind::kHello) {
    if (peer.hello) return nullptr;
    MapPeer(*frame);
    SendReady(frame->rank);
    return nullptr;
  }
  if (frame->kind == FrameKind::kReady) {
    peer.ready = true;
    return nullptr;
  }
  if (frame->kind == FrameKind::kGoodbye) {
    if (peer.gone) return nullptr;
    SendReady(frame->rank);
    peer.gone = any_gone_ = true;
    peer.farewell = frame->farewell;
    peer.culprit = frame->culprit;
    return nullptr;
  }
  if (absl::Status status = CheckMessage(*frame, payload_bytes); !status.ok()) {
    if (violation_.ok()) violation_ = std::move(status);
    return nullptr;
  }
  return RoomFor(*frame, payload_bytes);
}

absl::Status UcxGroup::CheckMessage(const ExchangeFrame& frame, std::size_t payload_bytes) const {
  const Mailbox& inbox = InboxOf(frame.rank);
  const Peer& peer = peers_[frame.rank];
  const auto check = [&](ExchangePhase phase, const char* what, std::uint64_t value,
                         std::uint64_t least, std::uint64_t most) {
    if (value >= least && value <= most) return absl::OkStatus();
    return BreaksTheRules(frame.rank, phase, what, value, {least, most});
  };
  switch (frame.kind) {
    case FrameKind::kOpening: {
      BALEEN_RETURN_IF_ERROR(
          check(ExchangePhase::kStepBarrier, "bytes of an opening", payload_bytes, 0, 0));
      return check(ExchangePhase::kStepBarrier, "opening", frame.number, inbox.openings + 1,
                   std::min(inbox.openings + 1, expected_.openings + 1));
    }
    case FrameKind::kDispatch: {
      BALEEN_RETURN_IF_ERROR(CheckDispatchCounts(shape_, frame.rank, {frame.rows, frame.entries}));
      const std::uint64_t bytes = DispatchBytes(shape_, {frame.rows, frame.entries});
      BALEEN_RETURN_IF_ERROR(check(ExchangePhase::kDispatch, "bytes", payload_bytes, bytes, bytes));
      const std::uint64_t next =
          inbox.lanes[frame.lane].dispatches + 1 + peer.dispatches_in[frame.lane].in_flight;
      return check(ExchangePhase::kDispatch, "dispatch", frame.number, next,
                   std::min(next, expected_.combines[frame.lane] + 1));
    }
    default: {
      const std::uint64_t bytes = expected_.outputs[frame.lane][frame.rank].size();
      BALEEN_RETURN_IF_ERROR(check(ExchangePhase::kCombine, "bytes", payload_bytes, bytes, bytes));
      const std::uint64_t next =
          inbox.combines[frame.lane].count + 1 + peer.combines_in[frame.lane].in_flight;
      return check(ExchangePhase::kCombine, "combine", frame.number, next,
                   std::min(next, expected_.dispatches[frame.lane]));
    }
  }
}

// Precondition: CheckMessage.
IncomingMessage* UcxGroup::RoomFor(const ExchangeFrame& frame, std::size_t payload_bytes) {
  Peer& peer = peers_[frame.rank];
  IncomingMessage* message = nullptr;
  switch (frame.kind) {
    case FrameKind::kOpening:
      message = &peer.opening_in;
      break;
    case FrameKind::kDispatch:
      message = &peer.dispatches_in[frame.lane];
      message->payload = {InboxRows(frame.rank, frame.lane), payload_bytes};
      break;
    default:
      message = &peer.combines_in[frame.lane];
      message->payload = expected_.outputs[frame.lane][frame.rank];
  }
  message->frame = frame;
  return message;
}

void UcxGroup::OnReceived(IncomingMessage& message) {
  const ExchangeFrame& frame = message.frame;
  Peer& peer = peers_[frame.rank];
  Mailbox& inbox = InboxOf(frame.rank);
  const std::int64_t now_ns = NowNs();
  switch (frame.kind) {
    case FrameKind::kOpening:
      inbox.opening[(frame.number - 1) % 2] = {.epoch = frame.step_epoch,
                                               .step = frame.step,
                                               .rows = frame.rows,
                                               .prepared = frame.entries,
                                               .leaves = frame.leaves};
      inbox.opened_ns = now_ns;
      inbox.openings.store(frame.number, std::memory_order_release);
      break;
    case FrameKind::kDispatch:
      inbox.lanes[frame.lane].rows = frame.rows;
      inbox.lanes[frame.lane].entries = frame.entries;
      inbox.lanes[frame.lane].dispatched_ns = now_ns;
      inbox.lanes[frame.lane].dispatches.store(frame.number, std::memory_order_release);
      break;
    default:
      peer.combined_by_message[frame.lane] = frame.number;
      inbox.combines[frame.lane].combined_ns = now_ns;
      inbox.combines[frame.lane].count.store(frame.number, std::memory_order_release);
  }
}

void UcxGroup::OnPeerLost(std::int32_t rank, const std::string& why) {
  Peer& peer = peers_[rank];
  if (peer.gone) return;
  peer.gone = any_gone_ = true;
  peer.farewell = Farewell::kLeft;
  peer.lost_why = why;
}

}  // namespace baleen::worker
