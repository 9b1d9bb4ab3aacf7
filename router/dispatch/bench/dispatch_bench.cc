// What the dispatch thread costs: to admit and route a request in a cluster of 1,000 ranks with
// 100,000 cached blocks in view, to look a prompt up in those, and to pass tokens on.
#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/clock.h"
#include "router/admission/admission.h"
#include "router/dispatch/dispatcher.h"

namespace baleen::router {
namespace {

constexpr std::uint32_t kRanks = 1000;
constexpr std::uint32_t kPromptBlocks = 64;
constexpr std::uint32_t kSharedBlocks = 8;  // a system prompt that every rank has
constexpr std::uint32_t kBlocksInView = 100'000;

class NullLink final : public WorkerLink {
 public:
  void Send(RouterFrame) override {}
  void Close(absl::Status) override {}
};

class CountingSink final : public ReplySink {
 public:
  bool Token(contract::RequestId, ReplyToken token) override {
    sum += static_cast<std::uint64_t>(token.id);
    return true;
  }
  void End(contract::RequestId, Ending) override {}
  void Flush() override { ++flushes; }

  std::uint64_t sum = 0;
  std::uint64_t flushes = 0;
};

std::uint64_t Mix(std::uint64_t x) {
  x = (x + 0x9e3779b97f4a7c15ULL);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

contract::BlockHash Hash(std::uint64_t number) {
  contract::BlockHash hash;
  const std::uint64_t bits = Mix(number);
  std::memcpy(hash.bytes.data(), &bits, sizeof(bits));
  return hash;
}

// The chain of conversation `number`: the shared blocks, then its own.
BlockHashes Chain(std::uint64_t number) {
  BlockHashes hashes;
  for (std::uint32_t i = 0; i < kPromptBlocks; ++i) {
    hashes.push_back(Hash(i < kSharedBlocks ? i : (number + 1) * 1000 + i));
  }
  return hashes;
}

constexpr std::uint32_t kConversations = kBlocksInView / (kPromptBlocks - kSharedBlocks);

// A cluster in which each conversation is cached by one to three ranks.
struct Cluster {
  explicit Cluster(Role first = Role::kPrefill, Role second = Role::kDecode)
      : dispatcher({}, SystemClock(), [this] { return ++transfers; }) {
    for (std::uint32_t i = 0; i < kRanks; ++i) {
      WorkerInfo info{.name = "rank-" + std::to_string(i),
                      .incarnation = 1,
                      .role = i % 2 == 0 ? first : second,
                      .rank = i,
                      .model = {.name = "deepseek-r1", .context_tokens = 163'840},
                      .kv_blocks_total = 100'000,
                      .sequences_max = 4096,
                      .step_tokens_max = 8192,
                      .data_plane_address = std::string(200, 'u')};
      dispatcher.OnAttached({i + 1}, std::make_shared<const WorkerInfo>(info), link);
      dispatcher.OnLoad({i + 1}, {.sequences_running = 64,
                                  .prompt_tokens_pending = Mix(i) % 20'000,
                                  .context_tokens_held = Mix(i + 7) % 500'000,
                                  .kv_blocks_used = static_cast<std::uint32_t>(Mix(i) % 50'000),
                                  .prompt_tokens_per_second = 9000.0f + i % 7});
    }
    BlockHashes shared = Chain(0);
    shared.resize(kSharedBlocks);
    for (std::uint32_t i = 0; i < kRanks; ++i)
      dispatcher.OnCacheEvents({i + 1}, {.stored = shared});
    for (std::uint32_t c = 0; c < kConversations; ++c) {
      chains.push_back(std::make_shared<const BlockHashes>(Chain(c)));
      for (std::uint64_t copy = 0; copy <= c % 3; ++copy) {
        dispatcher.OnCacheEvents({Mix(c * 3 + copy) % kRanks + 1}, {.stored = *chains.back()});
      }
    }
  }

  Request MakeRequest(std::uint64_t number) {
    return {.id = {1, number},
            .model = "deepseek-r1",
            .prompt = prompt,
            .tokens_max = 1024,
            .block_hashes = chains[number % chains.size()],
            .tenant = "tenant-" + std::to_string(number % 50),
            .sink = &sink};
  }

  std::uint64_t transfers = 0;
  NullLink link;
  CountingSink sink;
  Dispatcher dispatcher;
  std::vector<std::shared_ptr<const BlockHashes>> chains;
  std::shared_ptr<const TokenIds> prompt =
      std::make_shared<const TokenIds>(kPromptBlocks * 64 + 20, 7);
};

// Of this thread's processor time: other programs do not count.
double ThreadSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Of one request, beside those before it, which still run: up to 8,000, as in a cluster of that
// size.
void BM_AdmitAndRoute(benchmark::State& state) {
  Cluster cluster(state.range(0) != 0 ? Role::kMixed : Role::kPrefill,
                  state.range(0) != 0 ? Role::kMixed : Role::kDecode);
  Admission admission({.requests_max = 100'000}, SystemClock());
  std::vector<Admission::Ticket> tickets;
  std::uint64_t number = 0;
  for (auto _ : state) {
    Request request = cluster.MakeRequest(++number);
    const double start_s = ThreadSeconds();
    tickets.push_back(*admission.Admit({.bytes = 20'000, .tenant = request.tenant, .priority = 5}));
    cluster.dispatcher.Submit(std::move(request));
    state.SetIterationTime(ThreadSeconds() - start_s);
  }
}
BENCHMARK(BM_AdmitAndRoute)
    ->ArgName("mixed")
    ->Arg(0)
    ->Arg(1)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(8000);

void BM_MatchPrefix(benchmark::State& state) {
  PrefixIndex index;
  for (std::uint32_t i = 0; i < kRanks; ++i) benchmark::DoNotOptimize(index.AddRank(100'000));
  std::vector<BlockHashes> chains;
  for (std::uint32_t c = 0; c < kConversations; ++c) {
    chains.push_back(Chain(c));
    for (std::uint64_t copy = 0; copy <= c % 3; ++copy) {
      index.Store(static_cast<std::uint32_t>(Mix(c * 3 + copy) % kRanks), chains.back());
    }
  }
  BlockHashes shared(chains[0].begin(), chains[0].begin() + kSharedBlocks);
  for (std::uint32_t i = 0; i < kRanks; ++i) index.Store(i, shared);
  std::size_t c = 0;
  for (auto _ : state) benchmark::DoNotOptimize(index.Match(chains[++c % chains.size()]).data());
  state.counters["blocks"] = static_cast<double>(index.blocks());
}
BENCHMARK(BM_MatchPrefix)->Unit(benchmark::kMicrosecond);

// Steps of `sequences` tokens from each of 32 ranks in turn, all to one sink.
void BM_Tokens(benchmark::State& state) {
  constexpr std::uint64_t kDecodeRanks = 32;
  const auto sequences = static_cast<std::uint64_t>(state.range(0));
  std::uint64_t transfers = 0;
  NullLink link;
  CountingSink sink;
  Dispatcher dispatcher({}, SystemClock(), [&] { return ++transfers; });
  WorkerInfo info{.name = "m",
                  .role = Role::kMixed,
                  .model = {.name = "nano"},
                  .kv_blocks_total = 1u << 30,
                  .sequences_max = 1u << 16,
                  .step_tokens_max = 8192};
  std::vector<std::vector<TokenFrame>> steps(kDecodeRanks);
  for (std::uint64_t rank = 0; rank < kDecodeRanks; ++rank) {
    dispatcher.OnAttached({rank + 1}, std::make_shared<const WorkerInfo>(info), link);
    // Only the newest rank has room, so that its requests are known to be there.
    if (rank > 0) dispatcher.OnLoad({rank}, {.draining = true});
    for (std::uint64_t i = 0; i < sequences; ++i) {
      const std::uint64_t number = rank * sequences + i + 1;
      dispatcher.Submit({.id = {1, number},
                         .model = "nano",
                         .prompt = std::make_shared<const TokenIds>(100, 7),
                         .tokens_max = 1u << 22,
                         .sink = &sink});
      steps[rank].push_back({.key = {{1, number}, 1}, .token = {.id = 5}});
    }
  }
  std::uint64_t tokens = 0;
  for (auto _ : state) {
    for (std::uint64_t rank = 0; rank < kDecodeRanks; ++rank) {
      dispatcher.OnTokens({rank + 1}, steps[rank]);
      for (TokenFrame& token : steps[rank]) ++token.sequence;
    }
    tokens += kDecodeRanks * sequences;
  }
  if (sink.sum != 5 * tokens) state.SkipWithError("tokens were lost");
  state.counters["tokens"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Tokens)->ArgName("sequences")->Arg(32)->Arg(256);

}  // namespace
}  // namespace baleen::router

BENCHMARK_MAIN();
