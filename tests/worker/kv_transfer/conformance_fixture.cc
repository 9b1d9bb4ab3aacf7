// The fixture of the conformance suite: ranks, memory, and waiting without sleeping.
#include <chrono>
#include <cstring>
#include <numeric>

#include "tests/worker/kv_transfer/conformance.h"

namespace baleen::worker {

using contract::TransferId;

void Rank::Collect() {
  if (transfer_ == nullptr) return;
  for (TransferEvent& event : transfer_->Poll()) {
    events_[event.id.value].push_back(std::move(event));
  }
}

const TransferEvent& Rank::EventOf(TransferId id) const {
  const auto found = events_.find(id.value);
  static const TransferEvent kNone{.status = absl::UnknownError("no event")};
  EXPECT_NE(found, events_.end()) << "no event of " << id.value;
  return found == events_.end() ? kNone : found->second.front();
}

std::size_t Rank::events() const {
  return std::accumulate(events_.begin(), events_.end(), std::size_t{0},
                         [](std::size_t sum, const auto& of) { return sum + of.second.size(); });
}

BlockMemory::BlockMemory(std::size_t blocks, std::size_t block_bytes, std::uint64_t seed)
    : block_bytes_(block_bytes), bytes_(blocks * block_bytes) {
  std::uint64_t state = seed;
  for (std::size_t i = 0; seed != 0 && i + 8 <= bytes_.size(); i += 8) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(&bytes_[i], &state, 8);
  }
}

std::span<std::byte> BlockMemory::Block(std::size_t number) {
  return std::span(bytes_).subspan(number * block_bytes_, block_bytes_);
}

std::vector<std::span<std::byte>> BlockMemory::Blocks() {
  std::vector<std::span<std::byte>> blocks;
  for (std::size_t at = 0; at < bytes_.size(); at += block_bytes_) {
    blocks.push_back(std::span(bytes_).subspan(at, block_bytes_));
  }
  return blocks;
}

void BlockMemory::Fill(std::byte value) { std::fill(bytes_.begin(), bytes_.end(), value); }

bool BlockMemory::IsAll(std::byte value) const {
  return std::all_of(bytes_.begin(), bytes_.end(), [=](std::byte b) { return b == value; });
}

TransferLimits KvTransferConformance::Limits() {
  return {.block_bytes = kBlockBytes, .lease = absl::Seconds(30)};
}

void ExpectFailed(const TransferEvent& event, absl::StatusCode code) {
  EXPECT_EQ(event.kind, TransferEventKind::kFailed);
  EXPECT_EQ(event.status.code(), code) << event.status;
}

Rank& KvTransferConformance::NewRank(const TransferLimits& limits) {
  ranks_.push_back(std::make_unique<Rank>(fabric_->NewEndpoint(limits, clock_, [this] {
    const std::lock_guard lock(mutex_);
    wakes_++;
    woken_.notify_all();
  })));
  return *ranks_.back();
}

void KvTransferConformance::TearDown() {
  for (const auto& [rank, id] : begun_) {
    if (rank->alive() && !rank->Ended({id})) (*rank)->Cancel({id});
  }
  Until([&] {
    return std::all_of(begun_.begin(), begun_.end(), [](const auto& begun) {
      return begun.first->Ended({begun.second}) || !begun.first->alive();
    });
  });
  for (const auto& rank : ranks_) {
    for (const auto& [id, events] : rank->all()) {
      EXPECT_EQ(events.size(), 1u) << "transfer " << id << " has several final events";
      EXPECT_TRUE(begun_.contains({rank.get(), id})) << "transfer " << id << " was never begun";
    }
  }
  ranks_.clear();
}

void KvTransferConformance::Expect(Rank& rank, TransferId id, BlockMemory& memory) {
  ASSERT_EQ(rank->Expect(id, memory.Blocks()), absl::OkStatus());
  begun_.insert({&rank, id.value});
}

void KvTransferConformance::SendBlock(Rank& from, const Rank& to, TransferId id,
                                      BlockMemory& memory, std::uint32_t number) {
  ASSERT_EQ(from->Send({.id = id,
                        .peer_address = to.address(),
                        .block_number = number,
                        .block = memory.Block(number)}),
            absl::OkStatus());
  begun_.insert({&from, id.value});
}

void KvTransferConformance::SendClosing(Rank& from, const Rank& to, TransferId id,
                                        std::uint32_t blocks_total, std::string manifest) {
  ASSERT_EQ(from->Send({.id = id,
                        .peer_address = to.address(),
                        .last = true,
                        .blocks_total = blocks_total,
                        .manifest = std::move(manifest)}),
            absl::OkStatus());
  begun_.insert({&from, id.value});
}

void KvTransferConformance::SendAll(Rank& from, const Rank& to, TransferId id, BlockMemory& memory,
                                    std::uint32_t blocks, std::string manifest) {
  for (std::uint32_t number = 0; number < blocks; number++) {
    SendBlock(from, to, id, memory, number);
  }
  SendClosing(from, to, id, blocks, std::move(manifest));
}

void KvTransferConformance::Until(const std::function<bool()>& done) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (;;) {
    std::uint64_t wakes_before;
    {
      const std::lock_guard lock(mutex_);
      wakes_before = wakes_;
    }
    for (const auto& rank : ranks_) rank->Collect();
    if (done()) return;
    ASSERT_LT(std::chrono::steady_clock::now(), limit) << "waited for half a minute";
    std::unique_lock lock(mutex_);
    woken_.wait_for(lock, std::chrono::milliseconds(5), [&] { return wakes_ != wakes_before; });
  }
}

void KvTransferConformance::UntilEnded(TransferId id, Rank& a, Rank& b) {
  Until([&] { return a.Ended(id) && b.Ended(id); });
}

void KvTransferConformance::UntilFailed(Rank& rank, TransferId id, absl::StatusCode code) {
  Until([&] { return rank.Ended(id); });
  ExpectFailed(rank.EventOf(id), code);
}

void KvTransferConformance::UntilLeaseEnds(Rank& rank, TransferId id) {
  Until([&] {
    clock_.Advance(Limits().lease);
    return rank.Ended(id);
  });
}

void KvTransferConformance::UntilArrived(Rank& from, Rank& to) {
  const TransferId marker = NextId();
  BlockMemory source(1, kBlockBytes, marker.value);
  BlockMemory sink(1, kBlockBytes, 0);
  Expect(to, marker, sink);
  SendAll(from, to, marker, source, 1);
  UntilEnded(marker, from, to);
}

}  // namespace baleen::worker
