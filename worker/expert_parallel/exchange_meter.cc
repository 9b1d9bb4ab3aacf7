#include "worker/expert_parallel/exchange_meter.h"

namespace baleen::worker {

std::string_view NameOf(ExchangePhase phase) {
  switch (phase) {
    case ExchangePhase::kStepBarrier:
      return "step barrier";
    case ExchangePhase::kDispatch:
      return "dispatch";
    case ExchangePhase::kCombine:
      return "combine";
  }
  return "";
}

ExchangeMeter::ExchangeMeter(std::int32_t ranks)
    : ranks_(ranks), cells_(std::make_unique<Cell[]>(std::size_t{kExchangePhases} * ranks)) {}

void ExchangeMeter::AddWait(ExchangePhase phase, std::int32_t peer, absl::Duration wait) {
  At(phase, peer).wait_ns.fetch_add(absl::ToInt64Nanoseconds(wait), std::memory_order_relaxed);
}

void ExchangeMeter::AddBytes(ExchangePhase phase, std::int32_t peer, std::uint64_t bytes) {
  At(phase, peer).bytes.fetch_add(bytes, std::memory_order_relaxed);
}

ExchangeMeter::Reading ExchangeMeter::Read(ExchangePhase phase, std::int32_t peer) const {
  const Cell& cell = At(phase, peer);
  return {.wait_seconds = 1e-9 * static_cast<double>(cell.wait_ns.load(std::memory_order_relaxed)),
          .bytes = static_cast<double>(cell.bytes.load(std::memory_order_relaxed))};
}

}  // namespace baleen::worker
