// What the engine asks of the model for each sequence of a step, and what it makes of the answers.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "observability/base/check.h"
#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "worker/engine/engine.h"
#include "worker/engine/rules/reasons.h"

namespace baleen::worker {
namespace {

using contract::Reason;

// The same in every attempt.
std::uint64_t RequestOf(const Sequence& sequence) {
  return std::hash<contract::RequestId>{}(sequence.start.key.id);
}

}  // namespace

// Those whose grammar has been compiled may wait for a place; those whose grammar was refused end.
bool Engine::TakePrepared() {
  bool any = false;
  for (auto& sequence : preparing_) {
    if (sequence->phase == Phase::kEnded) continue;
    const absl::StatusOr<bool> prepared = sequence->grammar->Prepared();
    if (prepared.ok() && !*prepared) continue;
    any = true;
    if (prepared.ok()) {
      waiting_.push_back(std::move(sequence));
    } else {
      End(*sequence, EndReason::kError, WithReason(prepared.status(), Reason::kInvalidRequest));
    }
  }
  if (any) std::erase(preparing_, nullptr);
  return any;
}

void Engine::BuildBatch(const Plan& plan) {
  rows_.clear();
  batch_.clear();
  for (const std::uint32_t index : plan.decode) {
    Sequence& sequence = *running_[index];
    rows_.push_back({.sequence = &sequence});
    batch_.push_back({.tokens = {&sequence.last_token, 1},
                      .position = sequence.computed,
                      .block_table = sequence.blocks.ids(),
                      .form = AttentionForm::kAbsorbed,
                      .request = RequestOf(sequence)});
    AskForToken(sequence, batch_.back());
  }
  for (const PrefillChunk& chunk : plan.prefill) {
    if (chunk.sequence >= running_.size()) break;  // not admitted after all
    Sequence& sequence = *running_[chunk.sequence];
    if (sequence.phase == Phase::kEnded) continue;  // its blocks could not be offered
    const bool last = sequence.computed + chunk.tokens == sequence.prompt_tokens();
    rows_.push_back({.sequence = &sequence, .chunk = chunk.tokens});
    batch_.push_back(
        {.tokens = std::span(sequence.start.prompt).subspan(sequence.computed, chunk.tokens),
         .position = sequence.computed,
         .block_table = sequence.blocks.ids(),
         .form = AttentionForm::kPrefill,
         .request = RequestOf(sequence)});
    if (last) AskForToken(sequence, batch_.back());
    AskForFollowers(sequence, batch_.back());
  }
}

void Engine::AskForToken(Sequence& sequence, SequenceStep& step) const {
  step.sample = &sequence.start.sampling;
  step.uses = sequence.rules->uses();
  step.banned = sequence.rules->banned();
  if (sequence.grammar != nullptr) step.mask = sequence.grammar->mask();
}

// The last token of the prompt is followed by what is sampled.
void Engine::AskForFollowers(const Sequence& sequence, SequenceStep& step) const {
  const std::optional<std::uint32_t>& asked = sequence.start.prompt_logprobs;
  if (!asked.has_value()) return;
  const std::span<const std::int32_t> after =
      std::span(sequence.start.prompt).subspan(step.position + 1);
  step.followers = after.first(std::min(after.size(), step.tokens.size()));
  step.followers_top = *asked;
}

// Of the prompt's tokens from `first` + 1 on.
void Engine::ReportFollowers(Sequence& sequence, std::uint32_t first,
                             std::vector<TokenLogprobs>& followers) {
  if (!sequence.start.prompt_logprobs.has_value()) return;
  PromptLogprobsOutput output{.key = sequence.start.key, .first = first == 0 ? 0 : first + 1};
  if (first == 0) output.entries.emplace_back();
  for (TokenLogprobs& logprobs : followers) output.entries.emplace_back(std::move(logprobs));
  followers.clear();
  if (output.entries.empty()) return;
  reports_.AddPromptLogprobs(sequence.start.link, std::move(output));
}

void Engine::ApplyRow(const Row& row, SampledToken& sampled) {
  Sequence& sequence = *row.sequence;
  if (row.chunk == 0) {
    sequence.computed += 1;
    AcceptToken(sequence, sampled);
    return;
  }
  const std::uint32_t first = sequence.computed;
  sequence.computed += row.chunk;
  metrics_.prompt_tokens_total.Add(row.chunk);
  KeepComputed(sequence);
  if (!sampled.status.ok()) {  // also of a chunk that asked for no token
    EndFaulty(sequence, sampled.status);
    return;
  }
  ReportFollowers(sequence, first, sampled.followers);
  const bool prompt_done = sequence.computed == sequence.prompt_tokens();
  if (prompt_done) {
    sequence.phase = Phase::kDecoding;
    AcceptToken(sequence, sampled);
    if (sequence.phase == Phase::kEnded) return;
  }
  if (sequence.start.leg != Leg::kPrefill) return;
  if (!prompt_done) {
    Offer(sequence, sequence.computed / contract::kBlockTokens);
  } else {
    sequence.phase = Phase::kHandingOver;
    Offer(sequence, PromptBlocks(sequence.start));
    Close(sequence);
  }
}

void Engine::AcceptToken(Sequence& sequence, SampledToken& sampled) {
  if (!sampled.status.ok()) {
    EndFaulty(sequence, sampled.status);
    return;
  }
  const std::int32_t token = sampled.token;
  BALEEN_CHECK(token >= 0 && static_cast<std::uint32_t>(token) < start_limits_.vocabulary_size,
               "a sampled token is in the vocabulary");
  sequence.last_token = token;
  reports_.AddToken(sequence.start.link, {.key = sequence.start.key,
                                          .sequence = sequence.reply_next,
                                          .token = std::move(sampled),
                                          .with_logprobs = sequence.start.sampling.logprobs >= 0});
  ++sequence.reply_next;
  ++sequence.emitted;
  EndIfComplete(sequence, token);
}

// The sequence has no token. Only logits that are no numbers say something about its KV.
void Engine::EndFaulty(Sequence& sequence, const absl::Status& status) {
  const absl::Status fault = WithReason(status, Reason::kInternal);
  if (contract::ReasonOf(fault) == Reason::kNumericFault) pool_.Forget(sequence.blocks);
  End(sequence, EndReason::kError, fault);
}

// Also of a decode leg's first token, which the prefill rank has sampled.
void Engine::EndIfComplete(Sequence& sequence, std::int32_t token) {
  sequence.rules->Add(token);
  if (const std::optional<EndReason> reason = sequence.rules->ended()) {
    End(sequence, *reason);
  } else if (sequence.grammar != nullptr && sequence.start.leg != Leg::kPrefill) {
    sequence.grammar->Accept(token);
  }
}

}  // namespace baleen::worker
