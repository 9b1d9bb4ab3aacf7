// The product order is the one of AMX: TDPBF16PS and the reference give the same bits. Needs a CPU
// with AMX; skipped elsewhere.
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "gtest/gtest.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

constexpr std::int64_t kRows = 16;
constexpr std::int64_t kColumns = 16;

bool EnableAmx() {
  constexpr unsigned kAmxBf16 = 1u << 22;  // CPUID leaf 7, EDX
  constexpr unsigned kAmxTile = 1u << 24;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) {
    return false;
  }
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t column_bytes[16] = {64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

// y[16][16] = x[16][k] w[16][k]^T by tile steps of 32.
void MultiplyByTiles(const std::vector<std::uint16_t>& x, const std::vector<std::uint16_t>& w,
                     std::int64_t k, float* y) {
  alignas(64) std::uint16_t a[16][32];
  alignas(64) std::uint16_t b[16][32];  // pairs of k, 16 columns each
  const TileConfig config;
  asm("" ::"r"(&config) : "memory");  // the instruction below reads it
  _tile_loadconfig(&config);
  _tile_zero(0);
  for (std::int64_t step = 0; step < k; step += 32) {
    for (std::int64_t i = 0; i < 16; ++i) {
      for (std::int64_t j = 0; j < 32; ++j) {
        a[i][j] = x[i * k + step + j];
        b[j / 2][2 * i + j % 2] = w[i * k + step + j];
      }
    }
    _tile_loadd(1, a, 64);
    _tile_loadd(2, b, 64);
    _tile_dpbf16ps(0, 1, 2);
  }
  _tile_stored(0, y, 64);
  _tile_release();
}

struct Range {
  int exponent;
  int spread;
};

// Ordinary numbers, wide ranges, sums and products that underflow, and products that overflow.
class AmxOrder : public testing::TestWithParam<Range> {};

TEST_P(AmxOrder, IsTheReferenceOrder) {
  if (!EnableAmx()) {
    GTEST_SKIP() << "this CPU or kernel has no AMX";
  }
  Random random(11);
  const auto fill = [&](std::vector<std::uint16_t>& values) {
    for (std::uint16_t& value : values) {
      const int exponent =
          GetParam().exponent - static_cast<int>(random.Below(GetParam().spread + 1));
      value = FloatToBf16(std::ldexp(random.Normal(), exponent));
    }
  };
  for (int round = 0; round < 40; ++round) {
    Tensor tensor{.rows = kColumns, .columns = 256};
    tensor.bf16.resize(kColumns * 256);
    std::vector<std::uint16_t> x(kRows * 256);
    fill(tensor.bf16);
    fill(x);
    x[random.Below(x.size())] = 0x0012;  // a denormal
    const Packed packed(tensor.Source());
    alignas(64) float ours[kRows * kColumns];
    alignas(64) float tiles[kRows * kColumns];
    reference::Gemm({.m = kRows,
                     .weight = packed.get(),
                     .x = x.data(),
                     .x_stride = 256,
                     .y = ours,
                     .y_stride = kColumns});
    MultiplyByTiles(x, tensor.bf16, 256, tiles);
    for (std::int64_t i = 0; i < kRows * kColumns; ++i) {
      if (!std::isnan(ours[i]) || !std::isnan(tiles[i])) {
        ASSERT_EQ(Bits(ours[i]), Bits(tiles[i])) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ranges, AmxOrder,
                         testing::Values(Range{0, 0}, Range{10, 20}, Range{-61, 4}, Range{0, 64},
                                         Range{66, 4}));

}  // namespace
}  // namespace baleen::kernels
