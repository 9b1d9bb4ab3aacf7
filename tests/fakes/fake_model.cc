#include "tests/fakes/fake_model.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "observability/base/check.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

constexpr std::uint64_t kStart = 0x6261'6c65'656e'0001;  // the state before the first token

std::uint64_t Mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2));
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

std::uint64_t Feed(std::uint64_t state, std::int32_t token, AttentionForm form) {
  return Mix(state, (static_cast<std::uint64_t>(form) << 32) | static_cast<std::uint32_t>(token));
}

std::byte* Slot(const SequenceStep& sequence, KvView kv, std::uint32_t position) {
  const std::uint32_t block = sequence.block_table[position / contract::kBlockTokens];
  BALEEN_CHECK(block < kv.blocks, "a block table names blocks of the pool");
  const std::size_t slot =
      std::size_t{block} * contract::kBlockTokens + position % contract::kBlockTokens;
  return kv.base + slot * sizeof(std::uint64_t);
}

}  // namespace

FakeModel::FakeModel(const FakeModelOptions& options)
    : options_(options),
      info_{.name = "fake",
            .digest = std::string(64, 'f'),
            .context_tokens = options.context_tokens,
            .vocabulary_size = options.vocabulary_size,
            .eos_token_ids = {options.eos},
            .kv_block_bytes = contract::kBlockTokens * sizeof(std::uint64_t),
            .arithmetic = "fake-1"} {}

std::int32_t FakeModel::Sample(std::uint64_t state, const SampleSpec& sampling,
                               std::uint32_t position) const {
  std::uint64_t bits = Mix(state, std::bit_cast<std::uint32_t>(sampling.temperature));
  bits = Mix(bits, std::bit_cast<std::uint32_t>(sampling.top_p));
  bits = Mix(bits, sampling.top_k);
  if (sampling.temperature > 0) bits = Mix(Mix(bits, sampling.seed), position);
  return static_cast<std::int32_t>(bits % options_.vocabulary_size);
}

void FakeModel::Compute(const SequenceStep& sequence, KvView kv, SampledToken& sampled) const {
  std::uint64_t state = kStart;
  if (sequence.position > 0) {
    std::memcpy(&state, Slot(sequence, kv, sequence.position - 1), sizeof(state));
  }
  std::uint32_t position = sequence.position;
  for (const std::int32_t token : sequence.tokens) {
    state = Feed(state, token, sequence.form);
    std::memcpy(Slot(sequence, kv, position++), &state, sizeof(state));
  }
  if (sequence.sample == nullptr) return;
  if (faulty_seeds_.contains(sequence.sample->seed)) {
    sampled.status = contract::MakeStatus(contract::Reason::kNumericFault,
                                          "logits hold a value that is no number");
    return;
  }
  sampled.token = Sample(state, *sequence.sample, position);
  if (sequence.sample->logprobs < 0) return;
  sampled.logprob = -0.5f - static_cast<float>(sampled.token);
  for (std::int32_t i = 0; i < sequence.sample->logprobs; ++i) {
    sampled.top.emplace_back(i, -0.25f * static_cast<float>(i));
  }
}

// As a model does: whoever is not in step is found out.
absl::Status FakeModel::Exchange(AllToAll& all_to_all) {
  constexpr int kLane = 0;
  if (absl::Status status = all_to_all.StartDispatch(kLane, {}); !status.ok()) return status;
  if (const auto arrived = all_to_all.FinishDispatch(kLane); !arrived.ok()) return arrived.status();
  if (absl::Status status = all_to_all.StartCombine(kLane); !status.ok()) return status;
  return all_to_all.FinishCombine(kLane).status();
}

absl::Status FakeModel::Step(std::span<const SequenceStep> sequences, KvView kv,
                             const GroupStep& group, std::span<SampledToken> sampled) {
  const bool alone = group.all_to_all == nullptr;
  BALEEN_CHECK(sequences.size() == sampled.size(), "one result for each row");
  BALEEN_CHECK(!alone || !sequences.empty(), "a rank alone computes something");
  BALEEN_CHECK(sequences.size() <= options_.limits.sequences_max, "rows are within the limit");
  std::size_t tokens = 0;
  std::vector<Row>& rows = steps.emplace_back();
  for (const SequenceStep& sequence : sequences) {
    BALEEN_CHECK(!sequence.tokens.empty(), "a row has tokens");
    const std::size_t end = sequence.position + sequence.tokens.size();
    BALEEN_CHECK(end <= sequence.block_table.size() * contract::kBlockTokens,
                 "the block table covers the row");
    tokens += sequence.tokens.size();
    rows.push_back({.position = sequence.position,
                    .tokens = static_cast<std::uint32_t>(sequence.tokens.size()),
                    .form = sequence.form,
                    .sampled = sequence.sample != nullptr,
                    .request = sequence.request});
  }
  BALEEN_CHECK(tokens <= options_.limits.tokens_max, "tokens are within the limit");
  if (on_step) on_step();
  if (!next_failure_.ok()) return std::exchange(next_failure_, absl::OkStatus());
  if (!alone) {
    if (absl::Status status = Exchange(*group.all_to_all); !status.ok()) return status;
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) Compute(sequences[i], kv, sampled[i]);
  return absl::OkStatus();
}

std::vector<std::int32_t> FakeModel::Reply(std::span<const std::int32_t> prompt,
                                           const SampleSpec& sampling, std::uint32_t tokens_max,
                                           bool ignore_eos) const {
  std::uint64_t state = kStart;
  for (const std::int32_t token : prompt) state = Feed(state, token, AttentionForm::kPrefill);
  std::vector<std::int32_t> reply;
  while (reply.size() < tokens_max) {
    const auto position = static_cast<std::uint32_t>(prompt.size() + reply.size());
    reply.push_back(Sample(state, sampling, position));
    if (reply.back() == options_.eos && !ignore_eos) break;
    state = Feed(state, reply.back(), AttentionForm::kAbsorbed);
  }
  return reply;
}

}  // namespace baleen::worker
