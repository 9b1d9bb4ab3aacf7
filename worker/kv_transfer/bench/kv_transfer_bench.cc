// Pushes KV blocks from one rank to another, both in this process, and compares with a memcpy of
// the same buffers in the same run: the time from the first Send to the sender's final event,
// checksums on both sides included. UCX_TLS chooses the transports.
#include <benchmark/benchmark.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "worker/kv_transfer/ucx_kv_transfer.h"

namespace baleen::worker {
namespace {

// DeepSeek-R1: 64 tokens x 61 layers x 576 bf16 values.
constexpr std::size_t kBlockBytes = 64 * 61 * 576 * 2;

// A memcpy of less stays in the caches of one core and compares with nothing.
constexpr std::size_t kComparableBytes = std::size_t{64} << 20;

using Bytes = std::unique_ptr<std::byte[]>;

// Memory whose pages are there, out of reach of the caches when it is large.
Bytes Allocate(std::size_t size, int value) {
  Bytes bytes(new std::byte[size]);
  std::memset(bytes.get(), value, size);
  return bytes;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// An endpoint that can be waited for.
struct Rank {
  explicit Rank(std::size_t block_bytes) : event(eventfd(0, EFD_NONBLOCK)) {
    auto created = UcxKvTransfer::Create({.limits = {.block_bytes = block_bytes}, .wake = [this] {
                                            const std::uint64_t one = 1;
                                            BALEEN_CHECK(write(event, &one, 8) == 8, "wake");
                                          }});
    BALEEN_CHECK(created.ok(), "UCX starts on this machine");
    transfer = *std::move(created);
  }
  ~Rank() {
    transfer.reset();
    close(event);
  }
  TransferEvent Wait() {
    for (;;) {
      auto events = transfer->Poll();
      if (!events.empty()) return events.front();
      pollfd waiting{.fd = event, .events = POLLIN, .revents = 0};
      BALEEN_CHECK(poll(&waiting, 1, 30'000) == 1, "a transfer ends within its lease");
      std::uint64_t wakes = 0;
      BALEEN_CHECK(read(event, &wakes, 8) == 8, "poll has seen it");
    }
  }
  int event;
  std::unique_ptr<UcxKvTransfer> transfer;
};

double MemcpyBytesPerSecond(std::byte* to, const std::byte* from, std::size_t size) {
  double best = 0;
  for (int i = 0; i < 3; i++) {
    const auto start = std::chrono::steady_clock::now();
    std::memcpy(to, from, size);
    benchmark::ClobberMemory();
    best = std::max(best, static_cast<double>(size) / SecondsSince(start));
  }
  return best;
}

// range(0): bytes of a block; range(1): blocks.
void BM_Push(benchmark::State& state) {
  const auto block_bytes = static_cast<std::size_t>(state.range(0));
  const auto blocks = static_cast<std::uint32_t>(state.range(1));
  const std::size_t size = block_bytes * blocks;
  const Bytes source = Allocate(size, 1);
  const Bytes sink = Allocate(size, 2);
  Rank prefill(block_bytes);
  Rank decode(block_bytes);
  const std::string peer = decode.transfer->LocalAddress();
  std::uint64_t ids = 0;
  double seconds = 0;
  for (auto _ : state) {
    const contract::TransferId id{++ids};
    std::vector<std::span<std::byte>> memory;
    for (std::uint32_t i = 0; i < blocks; i++) {
      memory.emplace_back(sink.get() + i * block_bytes, block_bytes);
    }
    BALEEN_CHECK(decode.transfer->Expect(id, memory).ok(), "nothing else is under way");
    const auto start = std::chrono::steady_clock::now();
    for (std::uint32_t i = 0; i < blocks; i++) {
      const std::span<const std::byte> block(source.get() + i * block_bytes, block_bytes);
      BALEEN_CHECK(prefill.transfer
                       ->Send({.id = id, .peer_address = peer, .block_number = i, .block = block})
                       .ok(),
                   "the transfer is open");
    }
    BALEEN_CHECK(prefill.transfer->Send({.id = id, .last = true, .blocks_total = blocks}).ok(),
                 "the transfer is open");
    BALEEN_CHECK(prefill.Wait().kind == TransferEventKind::kHandedOver, "nothing fails here");
    const double elapsed = SecondsSince(start);
    state.SetIterationTime(elapsed);
    seconds += elapsed;
    BALEEN_CHECK(decode.Wait().kind == TransferEventKind::kReceived, "nothing fails here");
  }
  const double rate = static_cast<double>(size) * static_cast<double>(state.iterations()) / seconds;
  state.counters["GB/s"] = rate / 1e9;
  if (size >= kComparableBytes) {
    const double memcpy_rate = MemcpyBytesPerSecond(sink.get(), source.get(), size);
    state.counters["memcpy_GB/s"] = memcpy_rate / 1e9;
    state.counters["of_memcpy"] = rate / memcpy_rate;
  }
  state.SetLabel(prefill.transfer->Lanes());
}

BENCHMARK(BM_Push)
    ->ArgNames({"block_bytes", "blocks"})
    ->Args({kBlockBytes, 64})
    ->Args({kBlockBytes, 15})
    ->Args({65'536, 1024})
    ->Args({65'536, 16})
    ->Args({65'536, 1})
    ->MeasureProcessCPUTime()
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace baleen::worker

BENCHMARK_MAIN();
