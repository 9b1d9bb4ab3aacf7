// Fuzz target: any bytes as a frame of the exchange between ranks and what is behind it, and as a
// rank's address. What is accepted is within bounds. Magic number and key are put right here, so
// that mutations get past them.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "worker/expert_parallel/ucx/wire/exchange_frames.h"

namespace baleen::worker {
namespace {

constexpr AllToAllShape kShape{.ranks = 4,
                               .slots_per_rank = 3,
                               .slots_per_row = 2,
                               .row_bytes = 4,
                               .output_bytes = 2,
                               .rows_max = 5};
constexpr EndpointIdentity kSelf{.rank = 1, .ranks = 4, .epoch = 7, .key = 0x5eed};

void CheckRows(const ExchangeFrame& frame, std::span<const std::byte> payload) {
  const DispatchCounts counts{.rows = frame.rows, .entries = frame.entries};
  const absl::Status fits = CheckDispatchCounts(kShape, frame.rank, counts);
  if (!fits.ok()) {
    BALEEN_CHECK(fits.message().size() < 200, "an error is one short line");
    return;
  }
  BALEEN_CHECK(counts.rows <= 5 && counts.entries <= 10, "buffers hold what is accepted");
  // An exact copy: a byte beyond what is accepted is beyond the allocation.
  std::vector<std::byte> exact(DispatchBytes(kShape, counts));
  std::copy_n(payload.begin(), std::min(exact.size(), payload.size()), exact.begin());
  std::vector<PlannedEntry> entries;
  const std::byte* from = exact.data() + std::size_t{counts.rows} * kShape.row_bytes;
  if (!TakeEntries(kShape, frame.rank, from, counts, entries).ok()) return;
  BALEEN_CHECK(entries.size() == counts.entries, "all or none");
  std::int32_t row_before = 0;
  for (const PlannedEntry& entry : entries) {
    BALEEN_CHECK(entry.slot >= 0 && entry.slot < 3, "a slot of this rank");
    BALEEN_CHECK(entry.row >= row_before && entry.row < std::int32_t(counts.rows), "a row sent");
    BALEEN_CHECK(entry.output >= 0 && entry.output < 10, "a place for an output");
    row_before = entry.row;
  }
}

void CheckFrame(std::span<const std::byte> bytes) {
  ExchangeFrame frame;
  if (bytes.size() < sizeof(frame)) {
    BALEEN_CHECK(!ReadFrame(bytes, kSelf), "a frame has its length");
    return;
  }
  std::memcpy(&frame, bytes.data(), sizeof(frame));
  frame.magic = MakeFrame(FrameKind::kHello, kSelf, kSelf.key).magic;
  frame.key = kSelf.key;
  const auto read = ReadFrame(std::as_bytes(std::span(&frame, 1)), kSelf);
  if (!read) return;
  BALEEN_CHECK(read->rank >= 0 && read->rank < 4 && read->rank != 1, "a peer speaks");
  BALEEN_CHECK(read->lane < kLanes && read->culprit >= 0 && read->culprit < 4, "in its bounds");
  CheckRows(*read, bytes.subspan(sizeof(frame)));
}

void CheckCard(std::string_view bytes) {
  for (const std::int32_t rank : {0, 1, 2, 3}) {
    const auto card = ReadJoinCard(bytes, rank);
    if (card.ok()) BALEEN_CHECK(WriteJoinCard(*card) == bytes, "one card has one encoding");
  }
}

}  // namespace
}  // namespace baleen::worker

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  baleen::worker::CheckFrame(std::as_bytes(std::span(data, size)));
  baleen::worker::CheckCard({reinterpret_cast<const char*>(data), size});
  return 0;
}
