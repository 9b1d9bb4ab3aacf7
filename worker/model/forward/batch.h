// One step's tokens in the order in which the forward pass computes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/include/attention.h"
#include "worker/model/config.h"
#include "worker/model/model.h"

namespace baleen::worker {

// One sequence's rows within the batch.
struct BatchSequence {
  std::size_t index = 0;  // in the caller's order
  std::int64_t row = 0;   // of its first token
  std::int64_t rows = 0;
  std::int64_t position = 0;  // of its first token
  const std::uint32_t* block_table = nullptr;
  const SequenceStep* step = nullptr;  // what it asks for; of the caller

  std::int64_t end_position() const { return position + rows; }
};

// Rows of all sequences one after the other: first the sequences in absorbed form, then those in
// prefill form.
struct Batch {
  std::vector<std::int32_t> tokens;      // [rows]
  std::vector<std::uint32_t> positions;  // [rows]
  std::vector<std::uint64_t> requests;   // [rows]
  std::vector<BatchSequence> absorbed;
  std::vector<BatchSequence> prefill;
  std::int64_t absorbed_rows = 0;  // rows [0, absorbed_rows) are in absorbed form

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t prefill_rows() const { return rows() - absorbed_rows; }

  // Replaces the contents. kInvalidArgument names what breaks the limits; then the contents are of
  // no use.
  absl::Status Assign(const ModelConfig& config, const StepLimits& limits,
                      std::span<const SequenceStep> sequences, const KvView& kv);

  // Replaces the contents by rows [begin, end) of `whole`, as a batch of their own. A sequence that
  // crosses an end is cut there, as if it came in two chunks.
  void AssignPart(const Batch& whole, std::int64_t begin, std::int64_t end);
};

// One layer of the KV cache.
struct LayerKv {
  KvView kv;
  std::size_t layer = 0;
};

// How the KV cache's blocks are laid out: [layer][64][row] bf16.
struct KvLayout {
  std::int64_t layers = 0;
  std::int64_t row = 0;  // kv_lora_rank + qk_rope_head_dim

  std::size_t layer_bytes() const {
    return static_cast<std::size_t>(kernels::kKvBlockTokens * row) * sizeof(std::uint16_t);
  }
  std::size_t block_bytes() const { return static_cast<std::size_t>(layers) * layer_bytes(); }

  kernels::PagedKv Of(const LayerKv& kv, const BatchSequence& sequence) const {
    return {.base = kv.kv.base + kv.layer * layer_bytes(),
            .block_bytes = block_bytes(),
            .table = sequence.block_table,
            .row = row};
  }
};

}  // namespace baleen::worker
