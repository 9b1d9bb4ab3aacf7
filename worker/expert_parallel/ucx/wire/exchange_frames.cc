#include "worker/expert_parallel/ucx/wire/exchange_frames.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian");

constexpr std::uint32_t kFrameMagic = 0x31584542;  // "BEX1"
constexpr std::uint32_t kJoinMagic = 0x314a4542;   // "BEJ1"

class Writer {
 public:
  template <typename T>
  void Put(T value) {
    static_assert(std::is_integral_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void PutText(std::string_view text) {
    Put(static_cast<std::uint32_t>(text.size()));
    bytes_ += text;
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads what Writer wrote; anything that is not there is 0, and ok() tells.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Get() {
    T value{};
    if (const std::string_view from = Next(sizeof(T)); !from.empty()) {
      std::memcpy(&value, from.data(), sizeof(T));
    }
    return value;
  }
  std::string GetText() { return std::string(Next(Get<std::uint32_t>())); }
  bool AtEnd() const { return ok_ && bytes_.empty(); }

 private:
  std::string_view Next(std::size_t size) {
    if (size > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
    }
    const std::string_view next = bytes_.substr(0, size);
    bytes_.remove_prefix(next.size());
    return next;
  }

  std::string_view bytes_;
  bool ok_ = true;
};

struct ShapeNumber {
  const char* name;
  std::int32_t AllToAllShape::*number;
};

constexpr std::array<ShapeNumber, 6> kShapeNumbers = {{
    {"ranks", &AllToAllShape::ranks},
    {"expert slots of a rank", &AllToAllShape::slots_per_rank},
    {"experts of a row", &AllToAllShape::slots_per_row},
    {"bytes of a row", &AllToAllShape::row_bytes},
    {"bytes of an output", &AllToAllShape::output_bytes},
    {"rows of a rank", &AllToAllShape::rows_max},
}};

}  // namespace

ExchangeFrame MakeFrame(FrameKind kind, const EndpointIdentity& from, std::uint64_t key) {
  return {.magic = kFrameMagic, .kind = kind, .rank = from.rank, .epoch = from.epoch, .key = key};
}

std::optional<ExchangeFrame> ReadFrame(std::span<const std::byte> header,
                                       const EndpointIdentity& self) {
  if (header.size() != sizeof(ExchangeFrame)) return std::nullopt;
  ExchangeFrame frame;
  std::memcpy(&frame, header.data(), sizeof(frame));
  const auto in_group = [&](std::int32_t rank) { return rank >= 0 && rank < self.ranks; };
  if (frame.magic != kFrameMagic || frame.key != self.key || !in_group(frame.rank) ||
      frame.rank == self.rank || !in_group(frame.culprit) || frame.lane >= kLanes ||
      frame.leaves > 1 || frame.kind < FrameKind::kHello || frame.kind > FrameKind::kGoodbye ||
      frame.farewell > Farewell::kPeerLate) {
    return std::nullopt;
  }
  return frame;
}

absl::Status BreaksTheRules(std::int32_t rank, ExchangePhase phase, std::string_view what,
                            std::uint64_t value, Bounds bounds) {
  return absl::FailedPreconditionError(
      fmt::format("all-to-all: rank {} breaks the rules in the {}: {} {}, not {} to {}", rank,
                  NameOf(phase), what, value, bounds.least, bounds.most));
}

std::int64_t EntriesMax(const AllToAllShape& shape) {
  return std::int64_t{shape.rows_max} * std::min(shape.slots_per_row, shape.slots_per_rank);
}

absl::Status CheckDispatchCounts(const AllToAllShape& shape, std::int32_t source,
                                 DispatchCounts counts) {
  const auto [rows, entries] = counts;
  const auto rows_max = static_cast<std::uint32_t>(shape.rows_max);
  if (rows > rows_max) {
    return BreaksTheRules(source, ExchangePhase::kDispatch, "rows", rows, {0, rows_max});
  }
  const std::uint64_t most =
      std::uint64_t{rows} * std::min(shape.slots_per_row, shape.slots_per_rank);
  if (entries < rows || entries > most) {
    return BreaksTheRules(source, ExchangePhase::kDispatch, "entries", entries, {rows, most});
  }
  return absl::OkStatus();
}

std::uint64_t DispatchBytes(const AllToAllShape& shape, DispatchCounts counts) {
  return std::uint64_t{counts.rows} * shape.row_bytes +
         std::uint64_t{counts.entries} * sizeof(PlannedEntry);
}

absl::Status TakeEntries(const AllToAllShape& shape, std::int32_t source, const std::byte* from,
                         DispatchCounts counts, std::vector<PlannedEntry>& entries) {
  const auto wrong = [&](const char* what, std::int32_t value, std::int64_t least,
                         std::int64_t most) {
    // Negative numbers are shown as what they are on the wire.
    return BreaksTheRules(source, ExchangePhase::kDispatch, what, static_cast<std::uint32_t>(value),
                          {static_cast<std::uint64_t>(least), static_cast<std::uint64_t>(most)});
  };
  const std::size_t begin = entries.size();
  entries.resize(begin + counts.entries);
  if (counts.entries == 0) return absl::OkStatus();
  std::memcpy(entries.data() + begin, from, counts.entries * sizeof(PlannedEntry));
  const std::int64_t outputs = std::int64_t{shape.rows_max} * shape.slots_per_row;
  std::int32_t row_before = 0;
  for (std::size_t i = begin; i < entries.size(); ++i) {
    const PlannedEntry& entry = entries[i];
    if (entry.slot < 0 || entry.slot >= shape.slots_per_rank) {
      return wrong("an expert slot", entry.slot, 0, shape.slots_per_rank - 1);
    }
    if (entry.row < row_before || std::cmp_greater_equal(entry.row, counts.rows)) {
      return wrong("a row", entry.row, row_before, std::int64_t{counts.rows} - 1);
    }
    row_before = entry.row;
    if (entry.output < 0 || entry.output >= outputs) {
      return wrong("a place for an output", entry.output, 0, outputs - 1);
    }
  }
  return absl::OkStatus();
}

std::string WriteJoinCard(const JoinCard& card) {
  Writer out;
  out.Put(kJoinMagic);
  out.Put(card.rank);
  out.Put(card.key);
  out.Put(card.machine);
  for (const ShapeNumber& number : kShapeNumbers) out.Put(card.shape.*number.number);
  out.PutText(card.ucx_address);
  return out.Take();
}

absl::StatusOr<JoinCard> ReadJoinCard(std::string_view bytes, std::int32_t rank) {
  const auto refuse = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        fmt::format("all-to-all: the address of rank {} {}", rank, why));
  };
  if (bytes.size() > kJoinCardBytesMax) {
    return refuse(fmt::format("has {} bytes, above {}", bytes.size(), kJoinCardBytesMax));
  }
  Reader in(bytes);
  if (in.Get<std::uint32_t>() != kJoinMagic) return refuse("is not one of this version");
  JoinCard card;
  card.rank = in.Get<std::int32_t>();
  card.key = in.Get<std::uint64_t>();
  card.machine = in.Get<std::uint64_t>();
  for (const ShapeNumber& number : kShapeNumbers) {
    card.shape.*number.number = in.Get<std::int32_t>();
  }
  card.ucx_address = in.GetText();
  if (!in.AtEnd()) return refuse("has another length than it says");
  if (card.ucx_address.empty()) return refuse("is empty");
  if (card.rank != rank) return refuse(fmt::format("is that of rank {}", card.rank));
  return card;
}

absl::Status CheckJoinCard(const JoinCard& theirs, const JoinCard& mine) {
  for (const ShapeNumber& number : kShapeNumbers) {
    const std::int32_t its = theirs.shape.*number.number;
    const std::int32_t ours = mine.shape.*number.number;
    if (its == ours) continue;
    return absl::InvalidArgumentError(
        fmt::format("all-to-all: rank {} was started with {} {}, this rank {} with {}", theirs.rank,
                    its, number.name, mine.rank, ours));
  }
  return absl::OkStatus();
}

}  // namespace baleen::worker
