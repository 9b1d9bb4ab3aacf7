// A sequence in a test: its steps, what it samples, and everything that it leaves behind.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/worker/model/model_test_util.h"

namespace baleen::worker {

inline const SampleSpec kGreedy{.logprobs = 20};

// Everything that a sequence leaves behind.
struct Outcome {
  std::vector<std::int32_t> tokens;  // the sampled ones
  std::vector<std::pair<std::int32_t, float>> top;
  std::vector<std::byte> kv;

  friend bool operator==(const Outcome&, const Outcome&) = default;
};

// One sequence: its prompt in chunks, then `generate` tokens one by one in absorbed form.
class Sequence {
 public:
  Sequence(std::vector<std::int32_t> prompt, std::vector<std::uint32_t> table,
           SampleSpec spec = kGreedy, std::uint64_t request = 0)
      : tokens_(std::move(prompt)),
        prompt_tokens_(tokens_.size()),
        table_(std::move(table)),
        spec_(spec),
        request_(request) {}

  bool in_prefill() const { return done_ < prompt_tokens_; }

  // The next step, of at most `chunk` prompt tokens or one generated one.
  SequenceStep Next(std::size_t chunk) {
    count_ = in_prefill() ? std::min(chunk, prompt_tokens_ - done_) : 1;
    const bool last = done_ + count_ >= prompt_tokens_;
    return {.tokens = std::span(tokens_).subspan(done_, count_),
            .position = static_cast<std::uint32_t>(done_),
            .block_table = table_,
            .form = in_prefill() ? AttentionForm::kPrefill : AttentionForm::kAbsorbed,
            .sample = last ? &spec_ : nullptr,
            .request = request_};
  }

  void Take(const SampledToken& sampled) {
    done_ += count_;
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
        .kv = model.KvOf(table_, done_)};
  }

 private:
  std::vector<std::int32_t> tokens_;
  std::size_t prompt_tokens_;
  std::vector<std::uint32_t> table_;
  SampleSpec spec_;
  std::uint64_t request_;
  std::size_t done_ = 0;
  std::size_t count_ = 0;
  std::vector<std::pair<std::int32_t, float>> top_;
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
