// The pool of masks, with rules that wait until they are told to go on.
#include "worker/grammar/grammar_pool.h"

#include <atomic>
#include <latch>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "observability/base/clock.h"
#include "proto/contract/status.h"

namespace baleen::worker {
namespace {

using contract::Reason;

// The mask's words are the number of tokens so far and the latest of them.
class CountingRules final : public TokenRules {
 public:
  CountingRules(std::latch* begun, std::latch* hold) : begun_(begun), hold_(hold) {}

  absl::Status Mask(std::span<std::uint32_t> out) override {
    if (count_ > 0 && hold_ != nullptr) {
      begun_->count_down();
      hold_->wait();
    }
    out[0] = count_;
    out[1] = static_cast<std::uint32_t>(latest_);
    return count_ < 50 ? absl::OkStatus() : absl::ResourceExhaustedError("grammar: too much");
  }
  absl::Status Consume(std::int32_t token) override {
    if (token < 0) return absl::InvalidArgumentError("does not continue the grammar");
    ++count_;
    latest_ = token;
    return absl::OkStatus();
  }

 private:
  std::latch* const begun_;
  std::latch* const hold_;
  std::uint32_t count_ = 0;
  std::int32_t latest_ = 0;
};

class CountingCompiler final : public GrammarCompiler {
 public:
  absl::StatusOr<std::unique_ptr<TokenRules>> Compile(const text::GrammarSource& source) override {
    if (hold_compile != nullptr) hold_compile->wait();
    if (source.text == "bad") return absl::InvalidArgumentError("no grammar");
    return std::make_unique<CountingRules>(mask_begun, hold_mask);
  }
  std::size_t mask_words() const override { return 2; }

  std::latch* hold_compile = nullptr;
  // Of all masks but the first.
  std::latch* mask_begun = nullptr;
  std::latch* hold_mask = nullptr;
};

struct Bench {
  explicit Bench(GrammarPoolOptions options = {}) {
    options.wake = [this] { woken.count_down(); };
    pool = std::make_unique<GrammarPool>(options, clock, compiler);
  }
  std::unique_ptr<ReplyGrammar> Begin(std::string text,
                                      std::optional<std::int32_t> after = std::nullopt) {
    return pool->Begin({text::GrammarKind::kLark, std::move(text)}, after);
  }

  ManualClock clock;
  CountingCompiler compiler;
  std::latch woken{1};
  std::unique_ptr<GrammarPool> pool;
};

std::vector<std::uint32_t> Mask(ReplyGrammar& grammar) {
  const auto mask = grammar.mask()->Await();
  EXPECT_TRUE(mask.ok()) << mask.status();
  return mask.ok() ? std::vector<std::uint32_t>(mask->begin(), mask->end())
                   : std::vector<std::uint32_t>();
}

TEST(GrammarPoolTest, PreparesThenFollowsTheTokens) {
  Bench bench;
  const auto grammar = bench.Begin("good");
  bench.woken.wait();
  EXPECT_EQ(*grammar->Prepared(), true);
  EXPECT_THAT(Mask(*grammar), testing::ElementsAre(0, 0));
  for (std::uint32_t i = 1; i < 20; ++i) {
    grammar->Accept(static_cast<std::int32_t>(100 + i));
    EXPECT_THAT(Mask(*grammar), testing::ElementsAre(i, 100 + i));
  }
}

// Tokens that come before anybody has asked for a mask are not lost.
TEST(GrammarPoolTest, TakesSeveralTokensAtOnce) {
  Bench bench;
  const auto grammar = bench.Begin("good");
  bench.woken.wait();
  for (std::int32_t token = 1; token <= 10; ++token) grammar->Accept(token);
  EXPECT_THAT(Mask(*grammar), testing::ElementsAre(10, 10));
}

TEST(GrammarPoolTest, BeginsAfterItsToken) {
  Bench bench;
  const auto grammar = bench.Begin("good", 7);
  bench.woken.wait();
  EXPECT_EQ(grammar->mask(), nullptr);
  grammar->Accept(3);
  EXPECT_EQ(grammar->mask(), nullptr);
  grammar->Accept(7);
  EXPECT_THAT(Mask(*grammar), testing::ElementsAre(0, 0)) << "7 itself is not part of it";
  grammar->Accept(7);
  EXPECT_THAT(Mask(*grammar), testing::ElementsAre(1, 7));
}

TEST(GrammarPoolTest, RefusesTheRequestForItsGrammar) {
  Bench bench;
  const auto grammar = bench.Begin("bad");
  bench.woken.wait();
  const auto prepared = grammar->Prepared();
  EXPECT_EQ(contract::ReasonOf(prepared.status()), Reason::kInvalidRequest);
  EXPECT_THAT(std::string(prepared.status().message()), testing::HasSubstr("no grammar"));
}

TEST(GrammarPoolTest, WaitsForACompilationSoLong) {
  std::latch hold(1);
  Bench bench({.prepare_max = absl::Seconds(10)});
  bench.compiler.hold_compile = &hold;
  const auto grammar = bench.Begin("good");
  EXPECT_EQ(*grammar->Prepared(), false);
  bench.clock.Advance(absl::Seconds(9));
  EXPECT_EQ(*grammar->Prepared(), false);
  bench.clock.Advance(absl::Seconds(1));
  EXPECT_EQ(contract::ReasonOf(grammar->Prepared().status()), Reason::kDeadlineExceeded);
  hold.count_down();
}

TEST(GrammarPoolTest, ErrorsAreForGood) {
  Bench bench;
  const auto grammar = bench.Begin("good");
  bench.woken.wait();
  grammar->Accept(-1);
  for (int i = 0; i < 2; ++i) {
    const auto mask = grammar->mask()->Await();
    EXPECT_EQ(contract::ReasonOf(mask.status()), Reason::kInvalidRequest) << mask.status();
    grammar->Accept(1);
  }
}

// A mask that is being computed is waited for; one that nobody has begun the engine computes
// itself.
TEST(GrammarPoolTest, ComputesItselfWhatNobodyHasBegun) {
  Bench bench({.mask_threads = 0});
  const auto grammar = bench.Begin("good");
  bench.woken.wait();
  grammar->Accept(5);
  EXPECT_THAT(Mask(*grammar), testing::ElementsAre(1, 5));
}

TEST(GrammarPoolTest, WaitsForAMaskSoLong) {
  std::latch begun(1);
  std::latch hold(1);
  Bench bench({.mask_wait_max = absl::Milliseconds(1)});
  bench.compiler.mask_begun = &begun;
  bench.compiler.hold_mask = &hold;
  const auto grammar = bench.Begin("good");
  bench.woken.wait();
  grammar->Accept(1);
  begun.wait();
  EXPECT_EQ(contract::ReasonOf(grammar->mask()->Await().status()), Reason::kDeadlineExceeded);
  hold.count_down();
}

TEST(GrammarPoolTest, SequencesMayGoAtAnyTime) {
  Bench bench;
  for (int i = 0; i < 200; ++i) {
    const auto grammar = bench.Begin(i % 3 == 0 ? "bad" : "good");
    for (std::int32_t token = 0; token < i % 4; ++token) grammar->Accept(token);
  }
  const auto last = bench.Begin("good");
  bench.pool.reset();  // with work left
}

TEST(GrammarPoolTest, ManySequencesAtATime) {
  Bench bench({.mask_threads = 3});
  std::vector<std::unique_ptr<ReplyGrammar>> grammars;
  for (int i = 0; i < 32; ++i) grammars.push_back(bench.Begin("good"));
  for (const auto& grammar : grammars) {
    while (!*grammar->Prepared()) std::this_thread::yield();
  }
  for (std::uint32_t step = 1; step <= 40; ++step) {
    for (const auto& grammar : grammars) grammar->Accept(static_cast<std::int32_t>(step));
    for (const auto& grammar : grammars) {
      EXPECT_THAT(Mask(*grammar), testing::ElementsAre(step, step));
    }
  }
}

}  // namespace
}  // namespace baleen::worker
