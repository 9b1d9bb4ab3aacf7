// What the exchange costs, by phase and peer: an endpoint counts, metrics read.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/time/time.h"

namespace baleen::worker {

enum class ExchangePhase : std::uint8_t { kStepBarrier, kDispatch, kCombine };
inline constexpr int kExchangePhases = 3;

// "step barrier", "dispatch", "combine": in errors.
std::string_view NameOf(ExchangePhase phase);

// Counts since its construction. One thread adds, any may read.
class ExchangeMeter {
 public:
  struct Reading {
    double wait_seconds = 0;  // from the begin of a wait for all until this peer had come
    double bytes = 0;         // sent to this peer; what stays on the rank is not counted
  };

  explicit ExchangeMeter(std::int32_t ranks);

  void AddWait(ExchangePhase phase, std::int32_t peer, absl::Duration wait);
  void AddBytes(ExchangePhase phase, std::int32_t peer, std::uint64_t bytes);

  std::int32_t ranks() const { return ranks_; }
  Reading Read(ExchangePhase phase, std::int32_t peer) const;

 private:
  struct Cell {
    std::atomic<std::uint64_t> wait_ns = 0;
    std::atomic<std::uint64_t> bytes = 0;
  };
  Cell& At(ExchangePhase phase, std::int32_t peer) const {
    return cells_[static_cast<int>(phase) * ranks_ + peer];
  }

  const std::int32_t ranks_;
  const std::unique_ptr<Cell[]> cells_;  // [phases][ranks]
};

}  // namespace baleen::worker
