// One step's tokens in the order in which the forward pass computes them.
#include "worker/model/forward/batch.h"

#include <algorithm>

#include "fmt/format.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

absl::Status CheckSequence(const ModelConfig& config, std::size_t index, const SequenceStep& step,
                           const KvView& kv) {
  const std::uint64_t end = std::uint64_t{step.position} + step.tokens.size();
  if (step.tokens.empty()) {
    return absl::InvalidArgumentError(fmt::format("sequence {} of the step has no tokens", index));
  }
  if (end > config.max_position_embeddings) {
    return absl::InvalidArgumentError(
        fmt::format("sequence {} of the step ends at position {}; the context has {}", index, end,
                    config.max_position_embeddings));
  }
  const std::uint64_t blocks = (end + kernels::kKvBlockTokens - 1) / kernels::kKvBlockTokens;
  if (step.block_table.size() < blocks) {
    return absl::InvalidArgumentError(
        fmt::format("sequence {} of the step has {} KV blocks; it needs {}", index,
                    step.block_table.size(), blocks));
  }
  if (step.followers.size() > step.tokens.size()) {
    return absl::InvalidArgumentError(
        fmt::format("sequence {} of the step has {} tokens and {} followers", index,
                    step.tokens.size(), step.followers.size()));
  }
  for (std::uint64_t i = 0; i < blocks; ++i) {
    if (step.block_table[i] >= kv.blocks) {
      return absl::InvalidArgumentError(
          fmt::format("sequence {} of the step names KV block {} of {}", index, step.block_table[i],
                      kv.blocks));
    }
  }
  for (const auto& ids : {step.tokens, step.followers, step.banned}) {
    for (const std::int32_t token : ids) {
      if (token < 0 || static_cast<std::uint32_t>(token) >= config.vocab_size) {
        return absl::InvalidArgumentError(
            fmt::format("sequence {} of the step has token {}; the vocabulary has {}", index, token,
                        config.vocab_size));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Batch::Assign(const ModelConfig& config, const StepLimits& limits,
                           std::span<const SequenceStep> sequences, const KvView& kv) {
  tokens.clear();
  positions.clear();
  requests.clear();
  absorbed.clear();
  prefill.clear();
  if (sequences.size() > limits.sequences_max) {
    return absl::InvalidArgumentError(fmt::format("a step of {} sequences; the limit is {}",
                                                  sequences.size(), limits.sequences_max));
  }
  for (const AttentionForm form : {AttentionForm::kAbsorbed, AttentionForm::kPrefill}) {
    for (std::size_t index = 0; index < sequences.size(); ++index) {
      const SequenceStep& step = sequences[index];
      if (step.form != form) {
        continue;
      }
      BALEEN_RETURN_IF_ERROR(CheckSequence(config, index, step, kv));
      auto& group = form == AttentionForm::kAbsorbed ? absorbed : prefill;
      group.push_back({.index = index,
                       .row = rows(),
                       .rows = static_cast<std::int64_t>(step.tokens.size()),
                       .position = step.position,
                       .block_table = step.block_table.data(),
                       .step = &step});
      for (std::size_t i = 0; i < step.tokens.size() && tokens.size() <= limits.tokens_max; ++i) {
        tokens.push_back(step.tokens[i]);
        positions.push_back(step.position + static_cast<std::uint32_t>(i));
        requests.push_back(step.request);
      }
      if (tokens.size() > limits.tokens_max) {
        return absl::InvalidArgumentError(
            fmt::format("a step of more than {} tokens, the limit", limits.tokens_max));
      }
    }
    if (form == AttentionForm::kAbsorbed) {
      absorbed_rows = rows();
    }
  }
  return absl::OkStatus();
}

void Batch::AssignPart(const Batch& whole, std::int64_t begin, std::int64_t end) {
  tokens.assign(whole.tokens.begin() + begin, whole.tokens.begin() + end);
  positions.assign(whole.positions.begin() + begin, whole.positions.begin() + end);
  requests.assign(whole.requests.begin() + begin, whole.requests.begin() + end);
  absorbed_rows = std::clamp(whole.absorbed_rows, begin, end) - begin;
  const auto cut = [begin, end](const std::vector<BatchSequence>& from,
                                std::vector<BatchSequence>& to) {
    to.clear();
    for (BatchSequence sequence : from) {
      const std::int64_t first = std::max(sequence.row, begin);
      const std::int64_t last = std::min(sequence.row + sequence.rows, end);
      if (first >= last) continue;
      sequence.position += first - sequence.row;
      sequence.row = first - begin;
      sequence.rows = last - first;
      to.push_back(sequence);
    }
  };
  cut(whole.absorbed, absorbed);
  cut(whole.prefill, prefill);
}

}  // namespace baleen::worker
