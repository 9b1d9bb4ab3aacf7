#include "tests/fakes/fake_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

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

// What penalties make of the tokens so far, in any order; nothing without penalties.
std::uint64_t Penalties(const SampleSpec& sampling, std::span<const TokenUse> uses) {
  std::uint64_t sum = 0;
  const auto bits = [](float value) { return std::uint64_t{std::bit_cast<std::uint32_t>(value)}; };
  const bool repetition = sampling.repetition_penalty != 1.0f;
  const bool reply = sampling.frequency_penalty != 0.0f || sampling.presence_penalty != 0.0f;
  for (const TokenUse& use : uses) {
    const auto token = static_cast<std::uint32_t>(use.token);
    if (repetition) sum += Mix(Mix(token, bits(sampling.repetition_penalty)), use.in_prompt);
    if (repetition || reply) sum += Mix(Mix(token, use.in_reply), 3);
    if (reply && use.in_reply > 0) {
      sum += Mix(Mix(token, bits(sampling.frequency_penalty)), bits(sampling.presence_penalty));
    }
  }
  return sum;
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

std::uint64_t FakeModel::BitsOf(std::uint64_t state, const SampleSpec& sampling,
                                std::uint32_t position) const {
  const auto add = [](std::uint64_t from, float value) {
    return Mix(from, std::bit_cast<std::uint32_t>(value));
  };
  std::uint64_t bits = add(state, sampling.temperature);
  bits = add(bits, sampling.top_p);
  bits = Mix(bits, sampling.top_k);
  bits = add(bits, sampling.min_p);
  for (const LogitBias& bias : sampling.biases) {
    bits = add(Mix(bits, static_cast<std::uint32_t>(bias.token)), bias.bias);
  }
  if (sampling.temperature > 0) bits = Mix(Mix(bits, sampling.seed), position);
  return bits;
}

// The first token from `bits` on that is allowed; -1 when none is.
std::int32_t FakeModel::Choose(std::uint64_t bits,
                               const std::function<bool(std::int32_t token)>& allows) const {
  for (std::uint32_t i = 0; i < options_.vocabulary_size; ++i) {
    const auto token = static_cast<std::int32_t>((bits + i) % options_.vocabulary_size);
    if (allows(token)) return token;
  }
  return -1;
}

TokenLogprobs FakeModel::LogprobsOf(std::uint64_t state, std::int32_t token,
                                    std::uint32_t top) const {
  const auto value = [&](std::uint64_t salt) {
    return -static_cast<float>(Mix(state, salt) % 4096) / 64.0f;
  };
  TokenLogprobs logprobs{.logprob = value(static_cast<std::uint32_t>(token))};
  for (std::uint32_t i = 0; i < top; ++i) {
    logprobs.top.emplace_back(static_cast<std::int32_t>(i), value(1000 + i));
  }
  return logprobs;
}

void FakeModel::Sample(const SequenceStep& sequence, std::uint64_t state,
                       SampledToken& sampled) const {
  const SampleSpec& spec = *sequence.sample;
  const auto position = static_cast<std::uint32_t>(sequence.position + sequence.tokens.size());
  if (faulty_seeds_.contains(spec.seed)) {
    sampled.status = contract::MakeStatus(contract::Reason::kNumericFault,
                                          "logits hold a value that is no number");
    return;
  }
  std::span<const std::uint32_t> mask;
  if (sequence.mask != nullptr) {
    const auto awaited = sequence.mask->Await();
    if (!awaited.ok()) {
      sampled.status = awaited.status();
      return;
    }
    mask = *awaited;
  }
  const std::uint64_t bits = BitsOf(state, spec, position) + Penalties(spec, sequence.uses);
  sampled.token = Choose(bits, [&](std::int32_t token) {
    const auto word = static_cast<std::size_t>(token / 32);
    const bool masked =
        sequence.mask != nullptr && (word >= mask.size() || (mask[word] >> token % 32 & 1) == 0);
    return !masked && std::ranges::find(sequence.banned, token) == sequence.banned.end();
  });
  if (sampled.token < 0) {
    sampled.status = contract::MakeStatus(contract::Reason::kInvalidRequest, "no token is allowed");
    return;
  }
  if (spec.logprobs < 0) return;
  sampled.logprob = -0.5f - static_cast<float>(sampled.token);
  for (std::int32_t i = 0; i < spec.logprobs; ++i) {
    sampled.top.emplace_back(i, -0.25f * static_cast<float>(i));
  }
}

void FakeModel::Compute(const SequenceStep& sequence, KvView kv, SampledToken& sampled) const {
  std::uint64_t state = kStart;
  if (sequence.position > 0) {
    std::memcpy(&state, Slot(sequence, kv, sequence.position - 1), sizeof(state));
  }
  std::uint32_t position = sequence.position;
  for (std::size_t i = 0; i < sequence.tokens.size(); ++i) {
    state = Feed(state, sequence.tokens[i], sequence.form);
    std::memcpy(Slot(sequence, kv, position++), &state, sizeof(state));
    if (i >= sequence.followers.size()) continue;
    if (faulty_followers_.contains(sequence.followers[i])) {
      sampled.status = contract::MakeStatus(contract::Reason::kNumericFault,
                                            "logits hold a value that is no number");
      return;
    }
    sampled.followers.push_back(LogprobsOf(state, sequence.followers[i], sequence.followers_top));
  }
  if (sequence.sample != nullptr) Sample(sequence, state, sampled);
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
                    .uses = sequence.uses.size(),
                    .followers = sequence.followers.size(),
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
  return Reply({.prompt = {prompt.begin(), prompt.end()},
                .sampling = sampling,
                .tokens_max = tokens_max,
                .ignore_eos = ignore_eos});
}

std::vector<std::int32_t> FakeModel::Reply(const StartCommand& start, const Allows& allows) const {
  std::uint64_t state = kStart;
  for (const std::int32_t token : start.prompt) state = Feed(state, token, AttentionForm::kPrefill);
  const auto stops = [&](std::int32_t token) {
    return std::ranges::find(start.stop_token_ids, token) != start.stop_token_ids.end();
  };
  std::vector<std::int32_t> reply;
  while (reply.size() < start.tokens_max) {
    // Counted again for each token: nothing is carried on that could go wrong.
    std::map<std::int32_t, TokenUse> uses;
    if (start.sampling.repetition_penalty != 1.0f) {
      for (const std::int32_t token : start.prompt) uses[token].in_prompt = true;
    }
    for (const std::int32_t token : reply) ++uses[token].in_reply;
    std::vector<TokenUse> list;
    for (auto& [token, use] : uses) list.push_back({token, use.in_reply, use.in_prompt});
    const auto position = static_cast<std::uint32_t>(start.prompt.size() + reply.size());
    const std::uint64_t bits =
        BitsOf(state, start.sampling, position) + Penalties(start.sampling, list);
    const std::int32_t token = Choose(bits, [&](std::int32_t id) {
      const bool early = reply.size() < start.tokens_min && (id == options_.eos || stops(id));
      return !early && (allows == nullptr || allows(reply, id));
    });
    if (token < 0) break;
    reply.push_back(token);
    if ((token == options_.eos && !start.ignore_eos) || stops(token)) break;
    state = Feed(state, token, AttentionForm::kAbsorbed);
  }
  return reply;
}

std::vector<std::optional<TokenLogprobs>> FakeModel::PromptLogprobs(
    std::span<const std::int32_t> prompt, std::uint32_t top) const {
  std::vector<std::optional<TokenLogprobs>> all(1);
  std::uint64_t state = kStart;
  for (std::size_t i = 0; i + 1 < prompt.size(); ++i) {
    state = Feed(state, prompt[i], AttentionForm::kPrefill);
    all.emplace_back(LogprobsOf(state, prompt[i + 1], top));
  }
  return all;
}

}  // namespace baleen::worker
