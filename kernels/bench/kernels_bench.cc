// Speed of the kernels on one thread, as ratios to what this machine does in the same run: FMA from
// registers, and reading memory.
//
// of_peak: multiplications and additions per second over those of a pure FMA loop (AVX2). of_read:
// weight or KV bytes per second over those of a streaming read. Machines differ and so do their
// moods; the ratios are what to compare.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <numeric>
#include <vector>

#include "kernels/include/float_environment.h"
#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"

namespace baleen::kernels {
namespace {

// CPU seconds of this thread: on a busy machine, waiting is nobody's speed.
double Seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// FLOP/s of independent FMA chains that never leave the registers: 10 chains of 8 lanes hide the
// latency on every AVX2 core.
double FmaPeak() {
  constexpr int kLanes = 80;
  constexpr int kSteps = 1 << 21;
  float x[kLanes];
  std::iota(x, x + kLanes, 0.0f);
  double best = 0.0;
  for (int attempt = 0; attempt < 5; ++attempt) {
    const double begin = Seconds();
    for (int step = 0; step < kSteps; ++step) {
      for (int lane = 0; lane < kLanes; ++lane) {
        x[lane] = std::fma(x[lane], 0.999f, 0.001f);
      }
    }
    best = std::max(best, 2.0 * kLanes * kSteps / (Seconds() - begin));
    benchmark::DoNotOptimize(x);
  }
  return best;
}

// Bytes/s of reading memory that no cache holds all of.
double ReadBandwidth() {
  const std::vector<std::uint64_t> data((256u << 20) / sizeof(std::uint64_t), 1);
  double best = 0.0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const double begin = Seconds();
    std::uint64_t sum = std::accumulate(data.begin(), data.end(), std::uint64_t{0});
    benchmark::DoNotOptimize(sum);
    best = std::max(best,
                    static_cast<double>(data.size() * sizeof(std::uint64_t)) / (Seconds() - begin));
  }
  return best;
}

struct Machine {
  double fma_peak;
  double read_bandwidth;
};

const Machine& ThisMachine() {
  static const Machine machine{.fma_peak = FmaPeak(), .read_bandwidth = ReadBandwidth()};
  return machine;
}

// Runs `op` as often as the benchmark wants. Per call: floating-point operations, and bytes that
// have to be read.
template <typename Op>
void Measure(benchmark::State& state, double operations, double bytes, Op op) {
  const FloatEnvironment environment;
  const double begin = Seconds();
  for (auto _ : state) {
    op();
    benchmark::ClobberMemory();
  }
  const double per_call = (Seconds() - begin) / static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = operations / per_call / 1e9;
  state.counters["of_peak"] = operations / per_call / ThisMachine().fma_peak;
  state.counters["GB/s"] = bytes / per_call / 1e9;
  state.counters["of_read"] = bytes / per_call / ThisMachine().read_bandwidth;
}

std::vector<std::uint16_t> Values(std::int64_t count) {
  std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = FloatToBf16(std::sin(static_cast<float>(i)));
  }
  return values;
}

// Arguments: rows, columns of y, K, FP8 or not.
void BenchmarkGemm(benchmark::State& state) {
  const std::int64_t m = state.range(0);
  const std::int64_t n = state.range(1);
  const std::int64_t k = state.range(2);
  const bool fp8 = state.range(3) != 0;
  const std::vector<std::uint16_t> weight = Values(n * k);
  const std::vector<float> scales(static_cast<std::size_t>((n / 128 + 1) * (k / 128 + 1)), 1e-3f);
  const WeightSource source{.format = fp8 ? WeightFormat::kFp8Block : WeightFormat::kBf16,
                            .data = weight.data(),
                            .scales = scales.data(),
                            .columns = k,
                            .row_count = n};
  std::vector<std::max_align_t> storage(reference::PackedBytes(source) / sizeof(std::max_align_t) +
                                        1);
  const PackedWeight packed = reference::Pack(source, reinterpret_cast<std::byte*>(storage.data()));
  const std::vector<std::uint16_t> x = Values(m * k);
  std::vector<float> y(static_cast<std::size_t>(m * n));
  Measure(state, 2.0 * m * n * k, static_cast<double>(reference::PackedBytes(source)), [&] {
    reference::Gemm(
        {.m = m, .weight = &packed, .x = x.data(), .x_stride = k, .y = y.data(), .y_stride = n});
  });
}

// The nano model's projections, and one expert projection and an output slice of DeepSeek-R1.
BENCHMARK(BenchmarkGemm)
    ->Name("gemm/m/n/k/fp8")
    ->Args({1, 256, 256, 1})
    ->Args({64, 256, 256, 1})
    ->Args({1, 2048, 7168, 1})
    ->Args({4, 2048, 7168, 1})
    ->Args({64, 2048, 7168, 1})
    ->Args({1, 4096, 7168, 0})
    ->Unit(benchmark::kMicrosecond);

// Arguments: heads, latent, rope, context.
void BenchmarkAbsorbedAttention(benchmark::State& state) {
  const std::int64_t heads = state.range(0);
  const std::int64_t latent = state.range(1);
  const std::int64_t rope = state.range(2);
  const std::int64_t context = state.range(3);
  const std::int64_t row = latent + rope;
  std::vector<std::uint16_t> cache = Values(context * row);
  std::vector<std::uint32_t> table(static_cast<std::size_t>(context / kKvBlockTokens));
  std::iota(table.begin(), table.end(), 0u);
  const std::vector<std::uint16_t> q = Values(heads * row);
  std::vector<std::uint16_t> y(static_cast<std::size_t>(heads * latent));
  std::vector<float> scratch(static_cast<std::size_t>(AbsorbedScratchFloats(heads, latent, rope)));
  Measure(state, 2.0 * heads * context * (row + latent), 2.0 * context * row, [&] {
    reference::AbsorbedAttention(
        {.rows = 1,
         .heads = heads,
         .latent_dim = latent,
         .rope_dim = rope,
         .first_position = context - 1,
         .q = q.data(),
         .kv = {.base = reinterpret_cast<std::byte*>(cache.data()),
                .block_bytes = static_cast<std::size_t>(kKvBlockTokens * row) * 2,
                .table = table.data(),
                .row = row},
         .score_scale = 0.1f,
         .y = y.data(),
         .scratch = scratch.data()});
  });
}

BENCHMARK(BenchmarkAbsorbedAttention)
    ->Name("absorbed_attention/heads/latent/rope/context")
    ->Args({4, 128, 32, 256})
    ->Args({128, 512, 64, 2048})
    ->Unit(benchmark::kMicrosecond);

// One split of 512 keys against 64 queries that see all of it. Arguments: heads, nope, rope, value.
void BenchmarkPrefillAttention(benchmark::State& state) {
  const std::int64_t heads = state.range(0);
  const std::int64_t nope = state.range(1);
  const std::int64_t rope = state.range(2);
  const std::int64_t value = state.range(3);
  constexpr std::int64_t kRows = 64;
  const std::vector<std::uint16_t> q = Values(kRows * heads * (nope + rope));
  const std::vector<std::uint16_t> expanded = Values(kAttentionSplit * heads * (nope + value));
  const std::vector<std::uint16_t> rope_keys = Values(kAttentionSplit * rope);
  std::vector<float> maxima(static_cast<std::size_t>(kRows * heads));
  std::vector<float> sums(maxima.size());
  std::vector<float> values(maxima.size() * static_cast<std::size_t>(value));
  std::vector<float> scratch(static_cast<std::size_t>(AttentionScratchFloats(nope + rope, value)));
  const double operations = 2.0 * heads * kRows * kAttentionSplit * (nope + rope + value);
  const double bytes = 2.0 * kAttentionSplit * heads * (nope + value);
  Measure(state, operations, bytes, [&] {
    reference::PrefillAttention({.rows = kRows,
                                 .heads = heads,
                                 .nope_dim = nope,
                                 .rope_dim = rope,
                                 .value_dim = value,
                                 .first_position = kAttentionSplit - 1,
                                 .q = q.data(),
                                 .keys = kAttentionSplit,
                                 .expanded = expanded.data(),
                                 .rope_keys = rope_keys.data(),
                                 .rope_keys_stride = rope,
                                 .score_scale = 0.1f,
                                 .state = {maxima.data(), sums.data(), values.data()},
                                 .scratch = scratch.data()});
  });
}

BENCHMARK(BenchmarkPrefillAttention)
    ->Name("prefill_attention/heads/nope/rope/value")
    ->Args({4, 64, 32, 64})
    ->Args({16, 128, 64, 128})
    ->Unit(benchmark::kMicrosecond);

// Choosing one token of DeepSeek-V3's vocabulary. Arguments: in hundredths temperature and min-p,
// entries of penalties, whether there is a mask. Bytes: of the logits, once.
void BenchmarkSample(benchmark::State& state) {
  constexpr std::int64_t kVocabulary = 129'280;
  std::vector<float> logits(kVocabulary);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = 10.0f * std::sin(static_cast<float>(i) * 0.37f);
  }
  std::vector<float> adjusted(kVocabulary);
  std::vector<std::int32_t> ids(kVocabulary);
  std::vector<std::uint64_t> weights(kVocabulary);
  std::vector<TokenUse> uses(static_cast<std::size_t>(state.range(2)));
  for (std::size_t i = 0; i < uses.size(); ++i) {
    uses[i] = {.token = static_cast<std::int32_t>(i * 13), .in_reply = 1, .in_prompt = true};
  }
  const bool masked = state.range(3) != 0;
  const std::vector<std::uint32_t> mask(kVocabulary / 32, 0x0f0f0f0fu);
  const bool adjusts = masked || !uses.empty();
  std::uint64_t bits = 1;
  Measure(state, kVocabulary, 4.0 * kVocabulary, [&] {
    if (adjusts) {
      reference::AdjustLogits({.vocabulary = kVocabulary,
                               .logits = logits.data(),
                               .y = adjusted.data(),
                               .allowed = masked ? mask.data() : nullptr,
                               .allowed_words = static_cast<std::int64_t>(mask.size()),
                               .uses = uses.data(),
                               .use_count = static_cast<std::int64_t>(uses.size()),
                               .repetition_penalty = 1.1f});
    }
    benchmark::DoNotOptimize(
        reference::Sample({.vocabulary = kVocabulary,
                           .logits = adjusts ? adjusted.data() : logits.data(),
                           .temperature = static_cast<float>(state.range(0)) / 100.0f,
                           .min_p = static_cast<float>(state.range(1)) / 100.0f,
                           .random_bits = bits += 0x9e3779b97f4a7c15ull,
                           .scratch_ids = ids.data(),
                           .scratch_weights = weights.data()}));
  });
}

BENCHMARK(BenchmarkSample)
    ->Name("sample/temperature/min_p/penalties/mask")
    ->Args({0, 0, 0, 0})
    ->Args({100, 0, 0, 0})
    ->Args({100, 10, 0, 0})
    ->Args({100, 0, 5000, 0})
    ->Args({100, 0, 0, 1})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace baleen::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  const baleen::kernels::Machine& machine = baleen::kernels::ThisMachine();
  std::printf("this machine, one thread: FMA peak %.1f GFLOP/s (AVX2), reads %.1f GB/s\n",
              machine.fma_peak / 1e9, machine.read_bandwidth / 1e9);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
