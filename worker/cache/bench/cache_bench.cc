// What an admission pays for looking its prompt up in the cache, and a step for keeping what it
// computed: a prompt of 160,000 tokens is a chain of 2,500 blocks, in a cache of 100,000.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "proto/contract/limits.h"
#include "worker/cache/block_pool.h"
#include "worker/cache/cache_feed.h"

namespace baleen::worker {
namespace {

constexpr std::uint32_t kChainBlocks = 2500;
constexpr std::uint32_t kChains = 40;
constexpr std::uint32_t kBlocks = kChainBlocks * kChains;

using Chain = std::vector<contract::BlockHash>;

// Random names: as distinct as true ones.
Chain RandomChain(std::mt19937_64& random) {
  Chain chain(kChainBlocks);
  for (contract::BlockHash& hash : chain) {
    const std::uint64_t words[2] = {random(), random()};
    std::memcpy(hash.bytes.data(), words, sizeof(words));
  }
  return chain;
}

// A full cache, filled by turns so that the blocks of a chain do not lie next to each other.
struct FullCache {
  FullCache() {
    std::mt19937_64 random(1);
    std::vector<BlockList> lists;
    for (std::uint32_t i = 0; i < kChains; ++i) chains.push_back(RandomChain(random));
    lists.resize(kChains);
    for (std::uint32_t i = 0; i < kChains; ++i) lists[i] = *pool->Reserve(kChainBlocks);
    for (std::uint32_t blocks = 100; blocks <= kChainBlocks; blocks += 100) {
      for (std::uint32_t i = 0; i < kChains; ++i) {
        pool->Keep(lists[i], BlockChain(chains[i]).first(blocks));
      }
    }
  }

  CacheFeed feed{{.blocks = kBlocks}};
  std::unique_ptr<BlockPool> pool =
      *BlockPool::Create({.blocks = kBlocks, .block_bytes = 64, .feed = &feed});
  std::vector<Chain> chains;
};

void BM_Find(benchmark::State& state) {
  const FullCache cache;
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(cache.pool->Find(cache.chains[next++ % kChains]));
  }
}
BENCHMARK(BM_Find)->Unit(benchmark::kMicrosecond);

// Look-up and taking of all blocks, and giving them back.
void BM_ReserveCachedAndRelease(benchmark::State& state) {
  FullCache cache;
  std::size_t next = 0;
  for (auto _ : state) {
    std::optional<BlockList> list =
        cache.pool->Reserve(kChainBlocks, cache.chains[next++ % kChains]);
    benchmark::DoNotOptimize(list);
  }
}
BENCHMARK(BM_ReserveCachedAndRelease)->Unit(benchmark::kMicrosecond);

// The worst admission: nothing is cached, and all of the prompt's room has to be made.
void BM_ReserveByEvicting(benchmark::State& state) {
  std::mt19937_64 random(2);
  FullCache cache;
  for (auto _ : state) {
    state.PauseTiming();
    const Chain chain = RandomChain(random);
    state.ResumeTiming();
    BlockList list = *cache.pool->Reserve(kChainBlocks, chain);
    state.PauseTiming();
    cache.pool->Keep(list, chain);
    list.Release();
    cache.feed.Publish();
    state.ResumeTiming();
  }
}
BENCHMARK(BM_ReserveByEvicting)->Unit(benchmark::kMicrosecond);

// A step of 512 prompt tokens: eight blocks.
void BM_KeepAStep(benchmark::State& state) {
  std::mt19937_64 random(3);
  FullCache cache;
  BlockList list;
  Chain chain;
  std::uint32_t blocks = kChainBlocks;
  for (auto _ : state) {
    if (blocks + 8 > kChainBlocks) {
      state.PauseTiming();
      list.Release();
      chain = RandomChain(random);
      list = *cache.pool->Reserve(kChainBlocks, chain);
      blocks = 0;
      state.ResumeTiming();
    }
    blocks += 8;
    cache.pool->Keep(list, BlockChain(chain).first(blocks));
    cache.feed.Publish();
  }
}
BENCHMARK(BM_KeepAStep)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace baleen::worker

BENCHMARK_MAIN();
