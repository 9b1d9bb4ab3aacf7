// A sequence in a test: its steps, what it samples, and everything that it leaves behind.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/worker/model/model_test_util.h"

namespace baleen::worker {

inline const SampleSpec kGreedy{.logprobs = 20};

// Every rule that a request can ask for; with it a sequence also has a mask, and bans at first.
inline const SampleSpec kAllRules{.temperature = 1.2f,
                                  .top_k = 100,
                                  .top_p = 0.95f,
                                  .seed = 9,
                                  .logprobs = 20,
                                  .min_p = 0.01f,
                                  .repetition_penalty = 1.3f,
                                  .frequency_penalty = 0.5f,
                                  .presence_penalty = -0.4f,
                                  .biases = {{5, 4.0f}, {33, -100.0f}, {7, -3.5f}}};

// Two tokens of three, other ones after each token.
class SomeTokens final : public TokenMask {
 public:
  explicit SomeTokens(std::size_t generated = 0) : words_(16) {
    for (std::size_t id = 0; id < 32 * words_.size(); ++id) {
      if ((id + generated) % 3 != 0) words_[id / 32] |= 1u << id % 32;
    }
  }
  bool Allows(std::int32_t token) const {
    return (words_.at(static_cast<std::size_t>(token / 32)) >> token % 32 & 1) != 0;
  }
  absl::StatusOr<std::span<const std::uint32_t>> Await() override { return words_; }

 private:
  std::vector<std::uint32_t> words_;
};

// Everything that a sequence leaves behind.
struct Outcome {
  std::vector<std::int32_t> tokens;  // the sampled ones
  std::vector<std::pair<std::int32_t, float>> top;
  std::vector<TokenLogprobs> prompt;  // of its tokens but the first
  std::vector<std::byte> kv;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// One sequence: its prompt in chunks, scored, then `generate` tokens one by one in absorbed form.
class Sequence {
 public:
  Sequence(std::vector<std::int32_t> prompt, std::vector<std::uint32_t> table,
           SampleSpec spec = kGreedy, std::uint64_t request = 0)
      : tokens_(std::move(prompt)),
        prompt_tokens_(tokens_.size()),
        table_(std::move(table)),
        spec_(std::move(spec)),
        request_(request) {}

  bool in_prefill() const { return done_ < prompt_tokens_; }

  // The next step, of at most `chunk` prompt tokens or one generated one.
  SequenceStep Next(std::size_t chunk) {
    count_ = in_prefill() ? std::min(chunk, prompt_tokens_ - done_) : 1;
    const bool last = done_ + count_ >= prompt_tokens_;
    SequenceStep step{.tokens = std::span(tokens_).subspan(done_, count_),
                      .position = static_cast<std::uint32_t>(done_),
                      .block_table = table_,
                      .form = in_prefill() ? AttentionForm::kPrefill : AttentionForm::kAbsorbed,
                      .sample = last ? &spec_ : nullptr,
                      .request = request_};
    if (in_prefill()) {
      const auto after = std::span(tokens_).subspan(done_ + 1);
      step.followers = after.first(std::min(after.size(), count_));
      step.followers_top = 3;
    }
    if (last && spec_ == kAllRules) AddRules(step);
    return step;
  }

  void Take(const SampledToken& sampled) {
    done_ += count_;
    prompt_.insert(prompt_.end(), sampled.followers.begin(), sampled.followers.end());
    if (done_ >= prompt_tokens_) {
      EXPECT_TRUE(sampled.status.ok()) << sampled.status;
      tokens_.push_back(sampled.token);
      top_.insert(top_.end(), sampled.top.begin(), sampled.top.end());
    } else {
      EXPECT_EQ(sampled.token, -1) << "a token that nobody asked for";
    }
  }

  // From the begin, until `generate` tokens are sampled.
  std::size_t steps(std::size_t chunk, std::size_t generate) const {
    return (prompt_tokens_ + chunk - 1) / chunk + generate - 1;
  }

  std::size_t generated() const { return tokens_.size() - prompt_tokens_; }

  Outcome End(const LoadedModel& model) const {
    return {
        .tokens = {tokens_.begin() + static_cast<std::ptrdiff_t>(prompt_tokens_), tokens_.end()},
        .top = top_,
        .prompt = prompt_,
        .kv = model.KvOf(table_, done_)};
  }

 private:
  void AddRules(SequenceStep& step) {
    std::map<std::int32_t, TokenUse> uses;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      TokenUse& use = uses[tokens_[i]];
      if (i < prompt_tokens_) {
        use.in_prompt = true;
      } else {
        ++use.in_reply;
      }
    }
    uses_.clear();
    for (const auto& [token, use] : uses) uses_.push_back({token, use.in_reply, use.in_prompt});
    mask_ = SomeTokens(generated());
    step.uses = uses_;
    step.mask = &mask_;
    if (generated() < 2) step.banned = banned_;
  }

  std::vector<std::int32_t> tokens_;
  std::size_t prompt_tokens_;
  std::vector<std::uint32_t> table_;
  SampleSpec spec_;
  std::uint64_t request_;
  std::size_t done_ = 0;
  std::size_t count_ = 0;
  std::vector<std::pair<std::int32_t, float>> top_;
  std::vector<TokenLogprobs> prompt_;
  std::vector<TokenUse> uses_;
  SomeTokens mask_;
  std::vector<std::int32_t> banned_ = {1, 2, 40, 41, 42};
};

inline std::vector<std::uint32_t> Blocks(std::uint32_t first, std::uint32_t count) {
  std::vector<std::uint32_t> table(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    table[i] = first + count - 1 - i;
  }
  return table;
}

inline Outcome RunAlone(LoadedModel& model, Sequence sequence, std::size_t chunk,
                        std::size_t generate) {
  while (sequence.generated() < generate) {
    const SequenceStep step = sequence.Next(chunk);
    sequence.Take(model.Step({&step, 1})[0]);
  }
  return sequence.End(model);
}

}  // namespace baleen::worker
