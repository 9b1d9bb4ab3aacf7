// Both forms of attention: equal to the definition bit for bit, near float64, blind to chunking, to
// neighbours and to what they must not see.
#include <cstring>
#include <numeric>
#include <string>

#include "gtest/gtest.h"
#include "kernels/include/elementary.h"
#include "tests/kernels/kernel_test_util.h"

namespace baleen::kernels {
namespace {

// docs/arithmetic.md, "Attention", word for word for one query: key(p, d) and value(p, d) of the
// positions [0, visible).
template <typename Key, typename Value>
std::vector<std::uint16_t> DefinedAttention(const std::uint16_t* query, std::int64_t key_dim,
                                            std::int64_t value_dim, std::int64_t visible,
                                            float scale, Key key, Value value) {
  float total_max = 0.0f;
  float total_sum = 0.0f;
  std::vector<float> total(value_dim);
  for (std::int64_t split = 0; split < visible; split += 512) {
    const std::int64_t keys = std::min<std::int64_t>(512, visible - split);
    std::vector<float> weights(keys);
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t i = 0; i < keys; ++i) {
      weights[i] = TileSum(
          0, key_dim, [&](std::int64_t d) { return Bf16ToFloat(query[d]); },
          [&](std::int64_t d) { return key(split + i, d); }, 0.0f);
      largest = std::max(largest, weights[i]);
    }
    std::vector<float> lanes(32, 0.0f);
    const float offset = largest * scale;
    for (std::int64_t i = 0; i < keys; ++i) {
      weights[i] = Bf16ToFloat(FloatToBf16(Exp2(std::fma(weights[i], scale, -offset))));
      lanes[i % 32] = lanes[i % 32] + weights[i];
    }
    for (std::int64_t half : {16, 8, 4, 2, 1}) {
      for (std::int64_t j = 0; j < half; ++j) {
        lanes[j] = lanes[j] + lanes[j + half];
      }
    }
    const float merged = split == 0 ? largest : std::max(total_max, largest);
    const float before = Exp2((total_max - merged) * scale);
    const float here = Exp2((largest - merged) * scale);
    for (std::int64_t d = 0; d < value_dim; ++d) {
      const float output = TileSum(
          0, keys, [&](std::int64_t i) { return weights[i]; },
          [&](std::int64_t i) { return value(split + i, d); }, 0.0f);
      total[d] = split == 0 ? output : std::fma(output, here, total[d] * before);
    }
    total_sum = split == 0 ? lanes[0] : std::fma(lanes[0], here, total_sum * before);
    total_max = merged;
  }
  std::vector<std::uint16_t> y(value_dim);
  const float factor = 1.0f / total_sum;
  for (std::int64_t d = 0; d < value_dim; ++d) {
    y[d] = FloatToBf16(total[d] * factor);
  }
  return y;
}

// The same in float64, without any rounding.
template <typename Key, typename Value>
std::vector<double> ExactAttention(const std::uint16_t* query, std::int64_t key_dim,
                                   std::int64_t value_dim, std::int64_t visible, double scale,
                                   Key key, Value value) {
  std::vector<double> weights(visible);
  double largest = -1e300;
  for (std::int64_t p = 0; p < visible; ++p) {
    for (std::int64_t d = 0; d < key_dim; ++d) {
      weights[p] += static_cast<double>(Bf16ToFloat(query[d])) * key(p, d);
    }
    largest = std::max(largest, weights[p]);
  }
  double sum = 0.0;
  for (double& weight : weights) {
    weight = std::exp2((weight - largest) * scale);
    sum += weight;
  }
  std::vector<double> y(value_dim);
  for (std::int64_t d = 0; d < value_dim; ++d) {
    for (std::int64_t p = 0; p < visible; ++p) {
      y[d] += weights[p] / sum * value(p, d);
    }
  }
  return y;
}

// The weights are rounded to bf16 (relative 2^-9, against values of about 1), the result once more.
void ExpectNear(const std::uint16_t* y, const std::vector<double>& exact) {
  for (std::size_t d = 0; d < exact.size(); ++d) {
    ASSERT_NEAR(Bf16ToFloat(y[d]), exact[d], 0x1p-9 * (4.0 + std::fabs(exact[d]))) << d;
  }
}

struct AbsorbedCase {
  std::int64_t heads;
  std::int64_t latent;
  std::int64_t rope;
  std::int64_t position;
  std::int64_t rows;
};

// A paged cache whose blocks lie in a shuffled order and are full of NaN where nothing was stored.
class Cache {
 public:
  Cache(std::int64_t positions, std::int64_t row)
      : blocks_((positions + kKvBlockTokens - 1) / kKvBlockTokens),
        row_(row),
        storage_((blocks_ + 1) * kKvBlockTokens * row, kNanBf16),
        table_(blocks_) {
    std::iota(table_.rbegin(), table_.rend(), 1u);
  }
  PagedKv paged() {
    return {.base = reinterpret_cast<std::byte*>(storage_.data()),
            .block_bytes = static_cast<std::size_t>(kKvBlockTokens * row_) * 2,
            .table = table_.data(),
            .row = row_};
  }
  void Store(std::int64_t position, std::vector<std::uint16_t> rows) {
    reference::KvStore({.kv = paged(),
                        .position = position,
                        .rows = static_cast<std::int64_t>(rows.size()) / row_,
                        .contiguous = rows.data()});
  }

 private:
  std::int64_t blocks_;
  std::int64_t row_;
  std::vector<std::uint16_t> storage_;
  std::vector<std::uint32_t> table_;
};

std::vector<std::uint16_t> Absorbed(const AbsorbedCase& c, Cache& cache,
                                    const std::vector<std::uint16_t>& q, float scale) {
  std::vector<std::uint16_t> y(c.rows * c.heads * c.latent, kNanBf16);
  std::vector<float> scratch(AbsorbedScratchFloats(c.heads, c.latent, c.rope), kNan);
  reference::AbsorbedAttention({.rows = c.rows,
                                .heads = c.heads,
                                .latent_dim = c.latent,
                                .rope_dim = c.rope,
                                .first_position = c.position,
                                .q = q.data(),
                                .kv = cache.paged(),
                                .score_scale = scale,
                                .y = y.data(),
                                .scratch = scratch.data()});
  return y;
}

TEST(KvCopy, LoadsWhatWasStored) {
  Random random(1);
  Cache cache(200, 24);
  const std::vector<std::uint16_t> rows = random.Bf16(150 * 24);
  cache.Store(50, rows);
  std::vector<std::uint16_t> loaded(100 * 24);
  reference::KvLoad(
      {.kv = cache.paged(), .position = 70, .rows = 100, .contiguous = loaded.data()});
  EXPECT_EQ(loaded, std::vector<std::uint16_t>(rows.begin() + 20 * 24, rows.begin() + 120 * 24));
}

TEST(AbsorbedAttention, IsTheDefinitionAndNearFloat64) {
  Random random(2);
  for (const AbsorbedCase& c :
       {AbsorbedCase{1, 32, 2, 0, 1}, AbsorbedCase{2, 48, 16, 0, 9},
        AbsorbedCase{4, 128, 32, 63, 2}, AbsorbedCase{3, 33, 6, 510, 4},
        AbsorbedCase{1, 64, 32, 1030, 1}, AbsorbedCase{2, 512, 64, 130, 1}}) {
    SCOPED_TRACE(std::to_string(c.latent) + " at " + std::to_string(c.position));
    const std::int64_t row = c.latent + c.rope;
    const std::int64_t positions = c.position + c.rows;
    const std::vector<std::uint16_t> kv = random.Bf16(positions * row);
    const std::vector<std::uint16_t> q = random.Bf16(c.rows * c.heads * row);
    const auto scale = static_cast<float>(1.5 / std::sqrt(static_cast<double>(row)));
    Cache cache(positions, row);
    cache.Store(0, kv);
    const std::vector<std::uint16_t> y = Absorbed(c, cache, q, scale);
    const auto at = [&](std::int64_t p, std::int64_t d) { return Bf16ToFloat(kv[p * row + d]); };
    for (std::int64_t i = 0; i < c.rows * c.heads; ++i) {
      const std::int64_t visible = c.position + i / c.heads + 1;
      const std::vector<std::uint16_t> defined =
          DefinedAttention(q.data() + i * row, row, c.latent, visible, scale, at, at);
      ASSERT_EQ(std::memcmp(y.data() + i * c.latent, defined.data(), defined.size() * 2), 0) << i;
      ExpectNear(y.data() + i * c.latent,
                 ExactAttention(q.data() + i * row, row, c.latent, visible, scale, at, at));
    }
  }
}

TEST(AbsorbedAttention, RowsDoNotDependOnTheirNumber) {
  Random random(3);
  constexpr std::int64_t kRow = 40;
  Cache cache(553, kRow);
  cache.Store(0, random.Bf16(553 * kRow));
  const std::vector<std::uint16_t> q = random.Bf16(33 * 2 * kRow);
  const std::vector<std::uint16_t> all = Absorbed({2, 32, 8, 520, 33}, cache, q, 0.2f);
  for (std::int64_t rows = 1; rows <= 33; ++rows) {
    const std::vector<std::uint16_t> some(q.end() - rows * 2 * kRow, q.end());
    const std::vector<std::uint16_t> y = Absorbed({2, 32, 8, 553 - rows, rows}, cache, some, 0.2f);
    ASSERT_EQ(std::memcmp(y.data(), all.data() + (33 - rows) * 2 * 32, y.size() * 2), 0) << rows;
  }
}

struct PrefillCase {
  std::int64_t heads;
  std::int64_t nope;
  std::int64_t rope;
  std::int64_t value;
  std::int64_t positions;
};

struct PrefillData {
  std::vector<std::uint16_t> q;         // [positions][heads][nope + rope]
  std::vector<std::uint16_t> expanded;  // [positions][heads][nope + value]
  std::vector<std::uint16_t> rope;      // [positions][rope]
};

PrefillData MakePrefill(const PrefillCase& c, Random& random) {
  return {.q = random.Bf16(c.positions * c.heads * (c.nope + c.rope)),
          .expanded = random.Bf16(c.positions * c.heads * (c.nope + c.value)),
          .rope = random.Bf16(c.positions * c.rope)};
}

// The rows [begin, end) as one chunk. Later keys are there, but full of NaN.
std::vector<std::uint16_t> PrefillChunk(const PrefillCase& c, const PrefillData& data, float scale,
                                        std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = end - begin;
  const std::int64_t key_width = c.heads * (c.nope + c.value);
  std::vector<float> maxima(rows * c.heads, kNan);
  std::vector<float> sums(rows * c.heads, kNan);
  std::vector<float> values(rows * c.heads * c.value, kNan);
  std::vector<float> scratch(AttentionScratchFloats(c.nope + c.rope, c.value), kNan);
  const AttentionState state{maxima.data(), sums.data(), values.data()};
  for (std::int64_t split = 0; split < end; split += kAttentionSplit) {
    const std::int64_t keys = std::min(kAttentionSplit, end - split);
    reference::PrefillAttention({.rows = rows,
                                 .heads = c.heads,
                                 .nope_dim = c.nope,
                                 .rope_dim = c.rope,
                                 .value_dim = c.value,
                                 .first_position = begin,
                                 .q = data.q.data() + begin * c.heads * (c.nope + c.rope),
                                 .split_position = split,
                                 .keys = keys,
                                 .expanded = data.expanded.data() + split * key_width,
                                 .rope_keys = data.rope.data() + split * c.rope,
                                 .rope_keys_stride = c.rope,
                                 .score_scale = scale,
                                 .state = state,
                                 .scratch = scratch.data()});
  }
  std::vector<std::uint16_t> y(rows * c.heads * c.value, kNanBf16);
  reference::FinishAttention(
      {.rows = rows, .heads = c.heads, .value_dim = c.value, .state = state, .y = y.data()});
  return y;
}

TEST(PrefillAttention, IsTheDefinitionAndNearFloat64) {
  Random random(4);
  for (const PrefillCase& c : {PrefillCase{1, 32, 32, 32, 1}, PrefillCase{2, 24, 8, 40, 70},
                               PrefillCase{1, 16, 8, 16, 530}, PrefillCase{3, 7, 2, 5, 33}}) {
    SCOPED_TRACE(std::to_string(c.positions) + " positions");
    const PrefillData data = MakePrefill(c, random);
    const std::int64_t key_dim = c.nope + c.rope;
    const auto scale = static_cast<float>(1.5 / std::sqrt(static_cast<double>(key_dim)));
    const std::vector<std::uint16_t> y = PrefillChunk(c, data, scale, 0, c.positions);
    for (std::int64_t i = 0; i < c.positions * c.heads; ++i) {
      const std::int64_t head = i % c.heads;
      const auto expanded = [&](std::int64_t p, std::int64_t d) {
        return Bf16ToFloat(data.expanded[(p * c.heads + head) * (c.nope + c.value) + d]);
      };
      const auto key = [&](std::int64_t p, std::int64_t d) {
        return d < c.nope ? expanded(p, d) : Bf16ToFloat(data.rope[p * c.rope + d - c.nope]);
      };
      const auto value = [&](std::int64_t p, std::int64_t d) { return expanded(p, c.nope + d); };
      const std::int64_t visible = i / c.heads + 1;
      const std::uint16_t* query = data.q.data() + i * key_dim;
      const std::vector<std::uint16_t> defined =
          DefinedAttention(query, key_dim, c.value, visible, scale, key, value);
      ASSERT_EQ(std::memcmp(y.data() + i * c.value, defined.data(), defined.size() * 2), 0) << i;
      ExpectNear(y.data() + i * c.value,
                 ExactAttention(query, key_dim, c.value, visible, scale, key, value));
    }
  }
}

TEST(PrefillAttention, ChunksGiveTheBitsOfTheWhole) {
  Random random(5);
  const PrefillCase c{1, 24, 8, 32, 600};
  const PrefillData data = MakePrefill(c, random);
  const std::vector<std::uint16_t> whole = PrefillChunk(c, data, 0.25f, 0, c.positions);
  for (const std::int64_t chunk : {37, 200, 512}) {
    for (std::int64_t begin = 0; begin < c.positions; begin += chunk) {
      const std::int64_t end = std::min(begin + chunk, c.positions);
      const std::vector<std::uint16_t> y = PrefillChunk(c, data, 0.25f, begin, end);
      ASSERT_EQ(std::memcmp(y.data(), whole.data() + begin * c.heads * c.value, y.size() * 2), 0)
          << chunk << " from " << begin;
    }
  }
}

TEST(PrefillAttention, LaterKeysAreNotSeenEvenWhenTheyAreNan) {
  Random random(6);
  const PrefillCase c{1, 32, 16, 32, 80};
  PrefillData data = MakePrefill(c, random);
  const std::vector<std::uint16_t> clean = PrefillChunk(c, data, 0.25f, 0, c.positions);
  std::fill(data.expanded.begin() + 50 * (c.nope + c.value), data.expanded.end(), kNanBf16);
  std::fill(data.rope.begin() + 50 * c.rope, data.rope.end(), kNanBf16);
  const std::vector<std::uint16_t> y = PrefillChunk(c, data, 0.25f, 0, c.positions);
  EXPECT_EQ(std::memcmp(y.data(), clean.data(), 50 * c.value * 2), 0);
  EXPECT_TRUE(std::isnan(Bf16ToFloat(y[50 * c.value])));
}

// One key far above the others: the weights of all others underflow to exactly zero, in its split
// and in earlier ones.
TEST(AbsorbedAttention, AKeyFarAboveTheOthersTakesAll) {
  Random random(7);
  constexpr std::int64_t kRow = 36;
  std::vector<std::uint16_t> kv = random.Bf16(700 * kRow);
  std::vector<std::uint16_t> q(kRow, FloatToBf16(1.0f));
  for (std::int64_t d = 0; d < kRow; ++d) {
    kv[600 * kRow + d] = FloatToBf16(100.0f + static_cast<float>(d));
  }
  Cache cache(700, kRow);
  cache.Store(0, kv);
  const std::vector<std::uint16_t> y = Absorbed({1, 32, 4, 699, 1}, cache, q, 1.0f);
  for (std::int64_t d = 0; d < 32; ++d) {
    EXPECT_EQ(y[d], kv[600 * kRow + d]);
  }
}

}  // namespace
}  // namespace baleen::kernels
