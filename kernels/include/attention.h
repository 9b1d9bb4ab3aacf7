// Multi-head latent attention in its two forms, and the paged KV cache it reads
// (docs/arithmetic.md, "Attention").
//
// Both forms cut the keys by absolute position into splits of kAttentionSplit, compute each split
// by itself and merge the splits in order. So the result of a row depends on its position only, not
// on how a prompt was chunked.
#pragma once

#include <cstddef>
#include <cstdint>

namespace baleen::kernels {

inline constexpr std::int64_t kAttentionSplit = 512;
inline constexpr std::int64_t kKvBlockTokens = 64;
static_assert(kAttentionSplit % kKvBlockTokens == 0, "a split is made of whole blocks");

// One layer of one sequence's cache. Position p is row p % 64 of block p / 64; a row is [latent |
// rope], bf16.
struct PagedKv {
  // Of block table entry i: base + table[i] * block_bytes is [64][row] of this layer.
  std::byte* base = nullptr;
  std::size_t block_bytes = 0;
  const std::uint32_t* table = nullptr;
  std::int64_t row = 0;  // elements: kv_lora_rank + qk_rope_head_dim

  std::uint16_t* At(std::int64_t position) const {
    std::byte* block =
        base + static_cast<std::size_t>(table[position / kKvBlockTokens]) * block_bytes;
    return reinterpret_cast<std::uint16_t*>(block) + position % kKvBlockTokens * row;
  }
};

// Copies rows between a contiguous array and the cache positions [position, position + rows).
struct KvCopyParams {
  PagedKv kv;
  std::int64_t position = 0;
  std::int64_t rows = 0;
  std::uint16_t* contiguous =
      nullptr;  // bf16 [rows][kv.row]; source of KvStore, destination of KvLoad
};

// Running softmax of each (row, head): over the splits seen so far, the largest score, the sum of
// weights, the weighted sum of values.
struct AttentionState {
  float* score_max = nullptr;   // [rows][heads], raw scores before scaling
  float* weight_sum = nullptr;  // [rows][heads]
  float* values = nullptr;      // [rows][heads][value_dim]
};

// Prefill form: one split of keys and values, expanded from the latent by kv_b. Row r has position
// first_position + r and sees the keys up to itself.
struct PrefillAttentionParams {
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t nope_dim = 0;
  std::int64_t rope_dim = 0;
  std::int64_t value_dim = 0;
  std::int64_t first_position = 0;
  const std::uint16_t* q = nullptr;  // bf16 [rows][heads][nope_dim + rope_dim]
  std::int64_t split_position = 0;   // a multiple of kAttentionSplit; split 0 must come first
  std::int64_t keys = 0;             // 1..kAttentionSplit
  const std::uint16_t* expanded =
      nullptr;  // bf16 [keys][heads][nope_dim + value_dim]: key without rope, value
  const std::uint16_t* rope_keys = nullptr;  // bf16 [keys][rope_dim], rows rope_keys_stride apart
  std::int64_t rope_keys_stride = 0;
  float score_scale = 0.0f;  // softmax scale times log2(e)
  AttentionState state;      // in and out; rows before split_position are left alone
  float* scratch = nullptr;  // AttentionScratchFloats(nope_dim + rope_dim, value_dim)
};

// Ends the prefill form: y = state.values / state.weight_sum, rounded to bf16.
struct FinishAttentionParams {
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t value_dim = 0;
  AttentionState state;
  std::uint16_t* y = nullptr;  // bf16 [rows][heads][value_dim]
};

// Absorbed form, all splits: queries live in the latent space, keys are cache rows, values are
// their latent part. Row r has position first_position + r and sees the keys up to itself.
struct AbsorbedAttentionParams {
  std::int64_t rows = 0;
  std::int64_t heads = 0;
  std::int64_t latent_dim = 0;
  std::int64_t rope_dim = 0;
  std::int64_t first_position = 0;
  const std::uint16_t* q = nullptr;  // bf16 [rows][heads][latent_dim + rope_dim]
  PagedKv kv;
  float score_scale = 0.0f;
  std::uint16_t* y = nullptr;  // bf16 [rows][heads][latent_dim]
  float* scratch = nullptr;    // AbsorbedScratchFloats(heads, latent_dim, rope_dim)
};

// Rows that the absorbed form computes together; only speed depends on it.
inline constexpr std::int64_t kAbsorbedRows = 8;

// Scratch of one split: keys and values as fp32, one query, scores. 32: the reference's columns are
// padded to that.
constexpr std::int64_t AttentionScratchFloats(std::int64_t key_dim, std::int64_t value_dim) {
  const std::int64_t padded_value_dim = (value_dim + 31) / 32 * 32;
  return kAttentionSplit * (key_dim + padded_value_dim + 1) + key_dim + padded_value_dim;
}

constexpr std::int64_t AbsorbedScratchFloats(std::int64_t heads, std::int64_t latent_dim,
                                             std::int64_t rope_dim) {
  return AttentionScratchFloats(latent_dim + rope_dim, latent_dim) +
         kAbsorbedRows * heads * (latent_dim + 2);
}

}  // namespace baleen::kernels
