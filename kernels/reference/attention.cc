// Attention of the reference backend: both forms of MLA on one routine that attends one query to
// one split.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/include/elementary.h"
#include "kernels/include/numeric_formats.h"
#include "kernels/reference/reference.h"
#include "kernels/reference/row_sum.h"
#include "kernels/reference/tile.h"

namespace baleen::kernels::reference {
namespace {

// Where one query's head keeps its running softmax (AttentionState).
struct HeadState {
  float* score_max;
  float* weight_sum;
  float* values;
};

// The dimensions [dim, dim + dims) of `count` keys from number `key` on, in rows `stride` apart.
struct KeyRows {
  std::int64_t key = 0;
  std::int64_t count = 0;
  std::int64_t dim = 0;
  std::int64_t dims = 0;
  const std::uint16_t* rows = nullptr;
  std::int64_t stride = 0;
};

// Keys and values of one split as fp32 operands of AddTiles, and room for one query. Lives in the
// caller's scratch.
class Split {
 public:
  Split(float* scratch, std::int64_t key_dim, std::int64_t value_dim, float score_scale)
      : key_dim_(key_dim),
        value_dim_(value_dim),
        score_scale_(score_scale),
        keys_(scratch),
        values_(keys_ + kAttentionSplit * key_dim),
        weights_(values_ + kAttentionSplit * padded_value_dim()),
        query_(weights_ + kAttentionSplit),
        output_(query_ + key_dim) {}

  void SetKeys(const KeyRows& from) {
    for (std::int64_t i = 0; i < from.count; ++i) {
      const std::int64_t key = from.key + i;
      float* column = keys_ + key / kColumns * kColumns * key_dim_ + key % kColumns;
      for (std::int64_t d = 0; d < from.dims; ++d) {
        column[(from.dim + d) * kColumns] = Bf16ToFloat(from.rows[i * from.stride + d]);
      }
    }
  }

  void SetValues(std::int64_t key, std::int64_t count, const std::uint16_t* rows,
                 std::int64_t stride) {
    for (std::int64_t tile = 0; tile < value_dim_; tile += kColumns) {
      const std::int64_t columns = std::min(kColumns, value_dim_ - tile);
      for (std::int64_t i = 0; i < count; ++i) {
        float* row = values_ + tile * kAttentionSplit + (key + i) * kColumns;
        Widen(rows + i * stride + tile, columns, row);
        std::fill(row + columns, row + kColumns, 0.0f);
      }
    }
  }

  // Zero keys up to the next whole tile; they are computed, and then ignored.
  void PadKeys(std::int64_t count) {
    for (std::int64_t key = count; key % kColumns != 0; ++key) {
      float* column = keys_ + key / kColumns * kColumns * key_dim_ + key % kColumns;
      for (std::int64_t d = 0; d < key_dim_; ++d) {
        column[d * kColumns] = 0.0f;
      }
    }
  }

  // One query against the first `visible` keys, merged into its state. `first`: that is still
  // empty.
  void Attend(const std::uint16_t* query, std::int64_t visible, bool first,
              const HeadState& state) {
    Widen(query, key_dim_, query_);
    const float split_max = Scores(visible);
    const float split_sum = Weigh(visible, split_max);
    WeighValues(visible);
    if (first) {
      *state.score_max = split_max;
      *state.weight_sum = split_sum;
      std::copy_n(output_, value_dim_, state.values);
      return;
    }
    const float merged_max = std::max(*state.score_max, split_max);
    const float before = Exp2((*state.score_max - merged_max) * score_scale_);
    const float here = Exp2((split_max - merged_max) * score_scale_);
    *state.score_max = merged_max;
    *state.weight_sum = std::fma(split_sum, here, *state.weight_sum * before);
    for (std::int64_t d = 0; d < value_dim_; ++d) {
      state.values[d] = std::fma(output_[d], here, state.values[d] * before);
    }
  }

 private:
  std::int64_t padded_value_dim() const {
    return (value_dim_ + kColumns - 1) / kColumns * kColumns;
  }

  // Fills weights_ with raw scores; returns the largest.
  float Scores(std::int64_t visible) {
    std::fill_n(weights_, (visible + kColumns - 1) / kColumns * kColumns, 0.0f);
    for (std::int64_t tile = 0; tile < visible; tile += kColumns) {
      AddTiles(query_, keys_ + tile * key_dim_, key_dim_, weights_ + tile);
    }
    float largest = -std::numeric_limits<float>::infinity();
    for (std::int64_t i = 0; i < visible; ++i) {
      largest = weights_[i] > largest ? weights_[i] : largest;
    }
    return largest;
  }

  // Scores to weights, rounded to bf16 as the next product's input; returns the sum of the rounded
  // ones.
  float Weigh(std::int64_t visible, float split_max) {
    const float offset = split_max * score_scale_;
    for (std::int64_t i = 0; i < visible; ++i) {
      const float weight = Exp2(std::fma(weights_[i], score_scale_, -offset));
      weights_[i] = Bf16ToFloat(FloatToBf16(weight));
    }
    return RowSum(weights_, visible);
  }

  void WeighValues(std::int64_t visible) {
    std::fill_n(output_, padded_value_dim(), 0.0f);
    for (std::int64_t tile = 0; tile < value_dim_; tile += kColumns) {
      AddTiles(weights_, values_ + tile * kAttentionSplit, visible, output_ + tile);
    }
  }

  std::int64_t key_dim_;
  std::int64_t value_dim_;
  float score_scale_;
  float* keys_;     // [16][key_dim][32 keys]
  float* values_;   // [ceil(value_dim / 32)][512 keys][32]
  float* weights_;  // [512]
  float* query_;    // [key_dim]
  float* output_;   // [padded value_dim]
};

// Keys of a split that a query at `position` sees; none when it is not positive.
std::int64_t Visible(std::int64_t position, std::int64_t split_position) {
  return std::min(kAttentionSplit, position + 1 - split_position);
}

void Normalise(const float* values, float weight_sum, std::int64_t count, std::uint16_t* y) {
  const float factor = 1.0f / weight_sum;
  for (std::int64_t d = 0; d < count; ++d) {
    y[d] = FloatToBf16(values[d] * factor);
  }
}

// The keys and values of one split, straight from the cache.
void LoadSplit(const AbsorbedAttentionParams& params, std::int64_t split_position,
               std::int64_t keys, Split& split) {
  for (std::int64_t key = 0; key < keys; key += kKvBlockTokens) {
    const std::uint16_t* rows = params.kv.At(split_position + key);
    const std::int64_t count = std::min(kKvBlockTokens, keys - key);
    split.SetKeys({.key = key,
                   .count = count,
                   .dims = params.latent_dim + params.rope_dim,
                   .rows = rows,
                   .stride = params.kv.row});
    split.SetValues(key, count, rows, params.kv.row);
  }
  split.PadKeys(keys);
}

// Rows [begin, end), at most kAbsorbedRows of them, over all their splits.
void AbsorbedRows(const AbsorbedAttentionParams& params, std::int64_t begin, std::int64_t end) {
  const std::int64_t key_dim = params.latent_dim + params.rope_dim;
  Split split(params.scratch, key_dim, params.latent_dim, params.score_scale);
  float* maxima = params.scratch + AttentionScratchFloats(key_dim, params.latent_dim);
  float* sums = maxima + kAbsorbedRows * params.heads;
  float* values = sums + kAbsorbedRows * params.heads;
  const std::int64_t last_position = params.first_position + end - 1;
  for (std::int64_t at = 0; at <= last_position; at += kAttentionSplit) {
    LoadSplit(params, at, Visible(last_position, at), split);
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t visible = Visible(params.first_position + row, at);
      for (std::int64_t head = 0; head < params.heads && visible > 0; ++head) {
        const std::int64_t i = (row - begin) * params.heads + head;
        split.Attend(params.q + (row * params.heads + head) * key_dim, visible, at == 0,
                     {maxima + i, sums + i, values + i * params.latent_dim});
      }
    }
  }
  for (std::int64_t i = 0; i < (end - begin) * params.heads; ++i) {
    Normalise(values + i * params.latent_dim, sums[i], params.latent_dim,
              params.y + (begin * params.heads + i) * params.latent_dim);
  }
}

}  // namespace

void KvStore(const KvCopyParams& params) {
  for (std::int64_t i = 0; i < params.rows; ++i) {
    std::copy_n(params.contiguous + i * params.kv.row, params.kv.row,
                params.kv.At(params.position + i));
  }
}

void KvLoad(const KvCopyParams& params) {
  for (std::int64_t i = 0; i < params.rows; ++i) {
    std::copy_n(params.kv.At(params.position + i), params.kv.row,
                params.contiguous + i * params.kv.row);
  }
}

void PrefillAttention(const PrefillAttentionParams& params) {
  const std::int64_t key_dim = params.nope_dim + params.rope_dim;
  const std::int64_t head_stride = params.nope_dim + params.value_dim;
  const std::int64_t key_stride = params.heads * head_stride;
  Split split(params.scratch, key_dim, params.value_dim, params.score_scale);
  for (std::int64_t head = 0; head < params.heads; ++head) {
    const std::uint16_t* expanded = params.expanded + head * head_stride;
    split.SetKeys(
        {.count = params.keys, .dims = params.nope_dim, .rows = expanded, .stride = key_stride});
    split.SetKeys({.count = params.keys,
                   .dim = params.nope_dim,
                   .dims = params.rope_dim,
                   .rows = params.rope_keys,
                   .stride = params.rope_keys_stride});
    split.SetValues(0, params.keys, expanded + params.nope_dim, key_stride);
    split.PadKeys(params.keys);
    for (std::int64_t row = 0; row < params.rows; ++row) {
      const std::int64_t visible =
          std::min(params.keys, Visible(params.first_position + row, params.split_position));
      const std::int64_t i = row * params.heads + head;
      if (visible > 0) {
        split.Attend(params.q + i * key_dim, visible, params.split_position == 0,
                     {params.state.score_max + i, params.state.weight_sum + i,
                      params.state.values + i * params.value_dim});
      }
    }
  }
}

void FinishAttention(const FinishAttentionParams& params) {
  for (std::int64_t i = 0; i < params.rows * params.heads; ++i) {
    Normalise(params.state.values + i * params.value_dim, params.state.weight_sum[i],
              params.value_dim, params.y + i * params.value_dim);
  }
}

void AbsorbedAttention(const AbsorbedAttentionParams& params) {
  for (std::int64_t row = 0; row < params.rows; row += kAbsorbedRows) {
    AbsorbedRows(params, row, std::min(row + kAbsorbedRows, params.rows));
  }
}

}  // namespace baleen::kernels::reference
