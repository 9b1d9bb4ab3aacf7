// What a request asks for besides its tokens, on its way through dispatch: to the legs that need
// it, and log-probabilities of its prompt back, each once, whatever attempts there were.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "router/dispatch/dispatcher.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using contract::Reason;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kRouter = 42;
constexpr std::uint32_t kPromptTokens = 70;

class DispatcherRulesTest : public ::testing::Test {
 protected:
  MemoryLink& Attach(std::uint64_t worker, Role role) {
    MemoryLink& link = links_[worker];
    const WorkerInfo info = MakeWorkerInfo("worker-" + std::to_string(worker), role);
    dispatcher_.OnAttached({worker}, std::make_shared<const WorkerInfo>(info), link);
    // The lower its number the less a rank has to do, so that no draw decides between equals.
    dispatcher_.OnLoad(
        {worker}, {.prompt_tokens_pending = 100 * worker, .context_tokens_held = 6400 * worker});
    return link;
  }

  void Submit(bool prompt_logprobs = true) {
    Request request{.id = {kRouter, 1},
                    .model = "nano",
                    .prompt = std::make_shared<const TokenIds>(kPromptTokens, 7),
                    .sampling = {.min_p = 0.5f, .biases = {{3, 1.0f}}},
                    .tokens_max = 5,
                    .sink = &sink_};
    request.stop_token_ids = {8, 9};
    request.tokens_min = 2;
    if (prompt_logprobs) request.prompt_logprobs = 4;
    request.grammar = grammar_;
    request.block_hashes = hashes_;
    dispatcher_.Submit(std::move(request));
  }

  static contract::RequestKey Key(std::uint32_t attempt = 1) { return {{kRouter, 1}, attempt}; }

  // Of prompt tokens [first, end); the value of token i is -i.
  void PromptLogprobs(std::uint64_t worker, std::uint32_t first, std::uint32_t end,
                      std::uint32_t attempt = 1) {
    PromptLogprobsFrame frame{.key = Key(attempt), .logprobs = {.first = first}};
    for (std::uint32_t i = first; i < end; ++i) {
      auto& entry = frame.logprobs.entries.emplace_back();
      if (i > 0) entry = TokenLogprobs{.sampled = -1.0f * static_cast<float>(i)};
    }
    dispatcher_.OnPromptLogprobs({worker}, std::move(frame));
  }
  void Token(std::uint64_t worker, std::uint32_t sequence, std::uint32_t attempt = 1) {
    dispatcher_.OnTokens({worker},
                         {{.key = Key(attempt), .sequence = sequence, .token = {.id = 5}}});
  }
  void ExpectWhole() {
    const auto& entries = sink_.prompt_logprobs[1];
    ASSERT_EQ(entries.size(), kPromptTokens);
    EXPECT_FALSE(entries[0].has_value());
    for (std::uint32_t i = 1; i < kPromptTokens; ++i) {
      EXPECT_EQ(entries[i]->sampled, -1.0f * static_cast<float>(i));
    }
  }
  void ExpectInternal(const std::string& message) {
    ASSERT_TRUE(sink_.endings.contains(1));
    EXPECT_EQ(contract::ReasonOf(sink_.endings[1].status), Reason::kInternal);
    EXPECT_THAT(std::string(sink_.endings[1].status.message()), HasSubstr(message));
  }

  ManualClock clock_;
  std::uint64_t drawn_ = 1000;
  MemorySink sink_;
  std::map<std::uint64_t, MemoryLink> links_;
  Dispatcher dispatcher_{{}, clock_, [this] { return ++drawn_; }};
  const std::shared_ptr<const GrammarSpec> grammar_ = std::make_shared<const GrammarSpec>();
  const std::shared_ptr<const BlockHashes> hashes_ = std::make_shared<const BlockHashes>(1);
};

TEST_F(DispatcherRulesTest, EachLegIsToldWhatItNeeds) {
  MemoryLink& prefill = Attach(1, Role::kPrefill);
  MemoryLink& decode = Attach(2, Role::kDecode);
  Submit();
  const StartFrame p = prefill.All<StartFrame>().at(0);
  const StartFrame d = decode.All<StartFrame>().at(0);
  for (const StartFrame& leg : {p, d}) {
    EXPECT_EQ(leg.sampling, (Sampling{.min_p = 0.5f, .biases = {{3, 1.0f}}}));
    EXPECT_THAT(leg.stop_token_ids, ElementsAre(8, 9));
    EXPECT_EQ(leg.tokens_min, 2u);
    EXPECT_EQ(leg.grammar, grammar_);
  }
  EXPECT_EQ(p.prompt_logprobs, 4u);
  EXPECT_FALSE(d.prompt_logprobs.has_value()) << "it computes no prompt";
  EXPECT_EQ(p.block_hashes, hashes_);
}

TEST_F(DispatcherRulesTest, ThePromptComesBeforeTheReply) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Submit();
  PromptLogprobs(1, 0, 64);
  PromptLogprobs(1, 64, kPromptTokens);
  ExpectWhole();
  Token(2, 1);  // overtakes
  Token(1, 0);
  EXPECT_EQ(sink_.Ids(1).size(), 2u);
}

TEST_F(DispatcherRulesTest, AnotherAttemptGoesOnWhereTheFirstOneWasLost) {
  Attach(1, Role::kMixed);
  Attach(2, Role::kMixed);
  Submit();
  PromptLogprobs(1, 0, 40);
  dispatcher_.OnLost({1}, "gone");
  PromptLogprobs(1, 40, 50);  // of an attempt that is no more
  EXPECT_EQ(dispatcher_.counts().stale_frames_total, 1u);
  PromptLogprobs(2, 0, 30, 2);
  PromptLogprobs(2, 30, 60, 2);
  PromptLogprobs(2, 60, kPromptTokens, 2);
  ExpectWhole();
  Token(2, 0, 2);
  EXPECT_EQ(sink_.Ids(1).size(), 1u);
}

TEST_F(DispatcherRulesTest, AWorkerThatMixesThemUpEndsTheRequest) {
  struct Case {
    std::string says;
    std::function<void()> does;
  };
  const std::vector<Case> cases = {
      {"of prompt tokens 1 to 5, 0 of 70 are known", [this] { PromptLogprobs(1, 1, 5); }},
      {"of prompt tokens 60 to 71",
       [this] {
         PromptLogprobs(1, 0, 60);
         PromptLogprobs(1, 60, kPromptTokens + 1);
       }},
      {"a token after log-probabilities of 60 of 70 prompt tokens",
       [this] {
         PromptLogprobs(1, 0, 60);
         Token(1, 0);
       }},
      {"which are not of its leg",
       [this] {
         PromptLogprobs(1, 0, kPromptTokens);
         Token(1, 0);
         PromptLogprobs(1, 0, kPromptTokens);
       }},
      {"which are not of its leg", [this] { PromptLogprobs(2, 0, kPromptTokens); }},
  };
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  for (const Case& c : cases) {
    Submit();
    c.does();
    ExpectInternal(c.says);
    for (const std::uint64_t worker : {1, 2}) {
      dispatcher_.OnEnded({worker}, {.key = Key(), .reason = EndReason::kCancelled});
    }
    sink_ = {};
  }
  Submit(/*prompt_logprobs=*/false);
  PromptLogprobs(1, 0, 1);
  ExpectInternal("which are not of its leg");
}

TEST_F(DispatcherRulesTest, ASinkWithoutRoomEndsTheRequest) {
  Attach(1, Role::kMixed);
  sink_.room = 0;
  Submit();
  PromptLogprobs(1, 0, 10);
  EXPECT_EQ(contract::ReasonOf(sink_.endings[1].status), Reason::kCancelled);
}

TEST_F(DispatcherRulesTest, CachedTokensAreThoseOfTheLegThatHasThePrompt) {
  Attach(1, Role::kPrefill);
  Attach(2, Role::kDecode);
  Submit(/*prompt_logprobs=*/false);
  Token(1, 0);
  dispatcher_.OnEnded(
      {1}, {.key = Key(), .reason = EndReason::kHandedOver, .tokens = 1, .cached_tokens = 64});
  Token(2, 1);
  dispatcher_.OnEnded({2},
                      {.key = Key(), .reason = EndReason::kStop, .tokens = 1, .cached_tokens = 3});
  EXPECT_EQ(sink_.endings[1].cached_tokens, 64u);
}

TEST_F(DispatcherRulesTest, NoMoreIsCachedThanThePromptHas) {
  Attach(1, Role::kMixed);
  Submit(/*prompt_logprobs=*/false);
  Token(1, 0);
  dispatcher_.OnEnded(
      {1}, {.key = Key(), .reason = EndReason::kStop, .tokens = 1, .cached_tokens = 4'000'000});
  EXPECT_EQ(sink_.endings[1].cached_tokens, kPromptTokens);
}

}  // namespace
}  // namespace baleen::router
