// A model without arithmetic whose tokens prove that the engine feeds it right, and tells it right
// what a request asks for: every rule changes the tokens.
//
// The KV of position p is a hash of the whole chain of (token, attention form) up to p, and it is
// read back from the cache at every step. So a wrong block, position, form or order, or KV that was
// lost or mixed up in a transfer, changes every later token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "worker/engine/messages.h"
#include "worker/model/model.h"

namespace baleen::worker {

struct FakeModelOptions {
  std::uint32_t vocabulary_size = 64;
  std::uint32_t context_tokens = 2048;
  std::int32_t eos = 1;
  StepLimits limits;
};

class FakeModel final : public Model {
 public:
  // One row of a step, as the engine asked for it.
  struct Row {
    std::uint32_t position = 0;
    std::uint32_t tokens = 0;
    AttentionForm form = AttentionForm::kPrefill;
    bool sampled = false;
    std::size_t uses = 0;
    std::size_t followers = 0;
    std::uint64_t request = 0;
  };

  explicit FakeModel(const FakeModelOptions& options);

  const ModelInfo& info() const override { return info_; }
  absl::Status Step(std::span<const SequenceStep> sequences, KvView kv, const GroupStep& group,
                    std::span<SampledToken> sampled) override;

  // The whole reply that an engine must produce: up to tokens_max tokens, ending at the first EOS
  // unless ignored.
  std::vector<std::int32_t> Reply(std::span<const std::int32_t> prompt, const SampleSpec& sampling,
                                  std::uint32_t tokens_max, bool ignore_eos = false) const;
  // The same by all rules of a Start; `allows` stands for its grammar. Ends early where no token is
  // left.
  using Allows = std::function<bool(std::span<const std::int32_t> reply, std::int32_t token)>;
  std::vector<std::int32_t> Reply(const StartCommand& start, const Allows& allows = nullptr) const;
  // All that an engine must report of a prompt.
  std::vector<std::optional<TokenLogprobs>> PromptLogprobs(std::span<const std::int32_t> prompt,
                                                           std::uint32_t top) const;

  // Faults: the next step fails as a whole; sequences with this seed have NaN logits.
  void FailNextStep(absl::Status status) { next_failure_ = std::move(status); }
  void FaultSeed(std::uint64_t seed) { faulty_seeds_.insert(seed); }

  // Sequences that ask how probable this token was have NaN logits there.
  void FaultFollower(std::int32_t token) { faulty_followers_.insert(token); }

  // Called in every step, on the engine's thread.
  std::function<void()> on_step;
  // The steps so far; without rows when a rank only lends its experts.
  std::vector<std::vector<Row>> steps;

 private:
  std::uint64_t BitsOf(std::uint64_t state, const SampleSpec& sampling,
                       std::uint32_t position) const;
  std::int32_t Choose(std::uint64_t bits,
                      const std::function<bool(std::int32_t token)>& allows) const;
  TokenLogprobs LogprobsOf(std::uint64_t state, std::int32_t token, std::uint32_t top) const;
  void Sample(const SequenceStep& sequence, std::uint64_t state, SampledToken& sampled) const;
  static absl::Status Exchange(AllToAll& all_to_all);
  void Compute(const SequenceStep& sequence, KvView kv, SampledToken& sampled) const;

  const FakeModelOptions options_;
  ModelInfo info_;
  absl::Status next_failure_;
  std::set<std::uint64_t> faulty_seeds_;
  std::set<std::int32_t> faulty_followers_;
};

}  // namespace baleen::worker
