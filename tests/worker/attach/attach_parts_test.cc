// The pure parts of attach: messages to and from the wire, and the back-off.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "proto/contract/limits.h"
#include "proto/contract/status.h"
#include "worker/attach/backoff.h"
#include "worker/attach/discovery.h"
#include "worker/attach/wire.h"

namespace baleen::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr LinkId kLink{.value = 3};

v1::Start GoodStart() {
  v1::Start start;
  start.mutable_key()->set_router(7);
  start.mutable_key()->set_number(8);
  start.mutable_key()->set_attempt(2);
  start.set_leg(v1::LEG_PREFILL);
  for (const int token : {5, 6, 7}) start.add_prompt_token_ids(token);
  start.mutable_sampling()->set_temperature(0.5f);
  start.mutable_sampling()->set_top_k(4);
  start.mutable_sampling()->set_top_p(0.9f);
  start.mutable_sampling()->set_seed(99);
  start.mutable_sampling()->set_logprobs(-1);
  start.set_tokens_max(11);
  start.set_ignore_eos(true);
  start.set_deadline_ms(1500);
  start.set_transfer(123);
  start.set_peer_data_plane_address(std::string("a\0b", 3));
  return start;
}

TEST(ToStart, KeepsEveryField) {
  v1::Start wire = GoodStart();
  const auto start = wire::ToStart(wire, kLink);
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_EQ(start->link, kLink);
  EXPECT_EQ(start->key, (contract::RequestKey{{7, 8}, 2}));
  EXPECT_EQ(start->leg, Leg::kPrefill);
  EXPECT_THAT(start->prompt, ElementsAre(5, 6, 7));
  EXPECT_EQ(start->sampling, (SampleSpec{0.5f, 4, 0.9f, 99, -1}));
  EXPECT_EQ(start->tokens_max, 11u);
  EXPECT_TRUE(start->ignore_eos);
  EXPECT_EQ(start->time_left, absl::Milliseconds(1500));
  EXPECT_EQ(start->transfer.value, 123u);
  EXPECT_EQ(start->peer_address, std::string("a\0b", 3));
}

TEST(ToStart, KeepsTheRulesOfTheReply) {
  v1::Start wire = GoodStart();
  v1::Sampling& sampling = *wire.mutable_sampling();
  sampling.set_min_p(0.25f);
  sampling.set_repetition_penalty(1.5f);
  sampling.set_frequency_penalty(-1.0f);
  sampling.set_presence_penalty(2.0f);
  sampling.add_bias_token_ids(4);
  sampling.add_biases(-100.0f);
  sampling.add_bias_token_ids(9);
  sampling.add_biases(1.5f);
  wire.add_stop_token_ids(2);
  wire.add_stop_token_ids(3);
  wire.set_tokens_min(6);
  wire.set_prompt_logprobs(0);
  wire.mutable_grammar()->set_lark("start: \"a\"");
  wire.mutable_grammar()->set_after_token(77);
  for (int i = 3; i < 64; ++i) wire.add_prompt_token_ids(1);
  wire.set_block_hashes("0123456789abcdef");
  const auto start = wire::ToStart(wire, kLink);
  ASSERT_TRUE(start.ok()) << start.status();
  EXPECT_EQ(start->sampling, (SampleSpec{.temperature = 0.5f,
                                         .top_k = 4,
                                         .top_p = 0.9f,
                                         .seed = 99,
                                         .logprobs = -1,
                                         .min_p = 0.25f,
                                         .repetition_penalty = 1.5f,
                                         .frequency_penalty = -1.0f,
                                         .presence_penalty = 2.0f,
                                         .biases = {{4, -100.0f}, {9, 1.5f}}}));
  EXPECT_THAT(start->stop_token_ids, ElementsAre(2, 3));
  EXPECT_EQ(start->tokens_min, 6u);
  EXPECT_EQ(start->prompt_logprobs, 0u);
  EXPECT_EQ(start->grammar,
            (GrammarSpec{{text::GrammarKind::kLark, "start: \"a\""}, std::int32_t{77}}));
  ASSERT_EQ(start->block_hashes.size(), 1u);
  EXPECT_EQ(start->block_hashes[0].bytes[15], 'f');
}

TEST(ToStart, WhatIsUnsetIsNotAskedFor) {
  v1::Start wire = GoodStart();
  const auto start = wire::ToStart(wire, kLink);
  ASSERT_TRUE(start.ok());
  EXPECT_EQ(start->sampling.repetition_penalty, 1.0f) << "0 on the wire would be a penalty";
  EXPECT_FALSE(start->prompt_logprobs.has_value());
  EXPECT_FALSE(start->grammar.has_value());
  EXPECT_TRUE(start->block_hashes.empty());
}

TEST(ToStart, NoDeadlineIsForEver) {
  v1::Start wire = GoodStart();
  wire.set_deadline_ms(0);
  EXPECT_EQ(wire::ToStart(wire, kLink)->time_left, absl::InfiniteDuration());
}

TEST(ToStart, RefusesBadForm) {
  struct Case {
    std::string says;
    std::function<void(v1::Start&)> change;
  };
  const std::vector<Case> cases = {
      {"leg 0", [](v1::Start& s) { s.set_leg(v1::LEG_UNSPECIFIED); }},
      {"leg 9", [](v1::Start& s) { s.set_leg(static_cast<v1::Leg>(9)); }},
      {"count from 1", [](v1::Start& s) { s.mutable_key()->set_number(0); }},
      {"count from 1", [](v1::Start& s) { s.mutable_key()->set_attempt(0); }},
      {"count from 1", [](v1::Start& s) { s.clear_key(); }},
      {"4097 bytes is longer than 4096",
       [](v1::Start& s) { s.set_peer_data_plane_address(std::string(4097, 'a')); }},
      {"163841 tokens",
       [](v1::Start& s) {
         s.mutable_prompt_token_ids()->Resize(contract::kContextTokensMax + 1, 1);
       }},
      {"stop_token_ids of 65 entries, limit 64",
       [](v1::Start& s) { s.mutable_stop_token_ids()->Resize(65, 1); }},
      {"biases of 1025 entries, limit 1024",
       [](v1::Start& s) { s.mutable_sampling()->mutable_biases()->Resize(1025, 1.0f); }},
      {"3 bias_token_ids and 2 biases",
       [](v1::Start& s) {
         s.mutable_sampling()->mutable_bias_token_ids()->Resize(3, 1);
         s.mutable_sampling()->mutable_biases()->Resize(2, 1.0f);
       }},
      {"bias_token_ids and 0 biases",
       [](v1::Start& s) { s.mutable_sampling()->mutable_bias_token_ids()->Resize(99'999, 1); }},
      {"grammar of 262145 bytes, limit 262144",
       [](v1::Start& s) { s.mutable_grammar()->set_regex(std::string(262'145, 'a')); }},
      {"grammar of a kind", [](v1::Start& s) { s.mutable_grammar(); }},
      {"block_hashes of 16 bytes for a prompt of 3 tokens, not 0",
       [](v1::Start& s) { s.set_block_hashes(std::string(16, 'a')); }},
      {"block_hashes of 17 bytes",
       [](v1::Start& s) {
         s.mutable_prompt_token_ids()->Resize(64, 1);
         s.set_block_hashes(std::string(17, 'a'));
       }},
  };
  for (const Case& c : cases) {
    v1::Start wire = GoodStart();
    c.change(wire);
    const auto start = wire::ToStart(wire, kLink);
    ASSERT_FALSE(start.ok()) << c.says;
    EXPECT_EQ(start.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(contract::ReasonOf(start.status()).has_value());
    EXPECT_THAT(start.status().ToString(), HasSubstr(c.says));
  }
}

TEST(ToTerms, HoldsTheRouterToSaneTimes) {
  v1::Welcome welcome;
  EXPECT_FALSE(wire::ToTerms(welcome).ok()) << "no router number";
  welcome.set_router(5);
  EXPECT_EQ(wire::ToTerms(welcome)->heartbeat, absl::Milliseconds(10));
  welcome.set_heartbeat_ms(250);
  EXPECT_EQ(wire::ToTerms(welcome)->heartbeat, absl::Milliseconds(250));
  welcome.set_heartbeat_ms(std::numeric_limits<std::uint32_t>::max());
  EXPECT_EQ(wire::ToTerms(welcome)->heartbeat, absl::Seconds(10));
}

TEST(Messages, HelloSaysEverything) {
  const WorkerIdentity identity{.name = "prefill-1.2",
                                .incarnation = 42,
                                .role = Role::kPrefill,
                                .group = 1,
                                .rank = 2,
                                .model = {.name = "nano",
                                          .digest = "d",
                                          .context_tokens = 100,
                                          .vocabulary_size = 64,
                                          .eos_token_ids = {1, 3},
                                          .kv_block_bytes = 4096,
                                          .arithmetic = "one"},
                                .model_directory = "models/nano",
                                .kv_blocks_total = 10,
                                .sequences_max = 11,
                                .step_tokens_max = 12,
                                .data_plane_address = "ucx",
                                .metrics_address = "host:1"};
  const v1::Hello hello = wire::HelloMessage(identity).hello();
  EXPECT_EQ(hello.ShortDebugString(),
            "protocol_version: 1 worker: \"prefill-1.2\" incarnation: 42 role: ROLE_PREFILL "
            "group: 1 rank: 2 model { name: \"nano\" digest: \"d\" context_tokens: 100 "
            "vocabulary_size: 64 eos_token_ids: 1 eos_token_ids: 3 kv_block_bytes: 4096 "
            "arithmetic: \"one\" } kv_blocks_total: 10 sequences_max: 11 step_tokens_max: 12 "
            "data_plane_address: \"ucx\" metrics_address: \"host:1\" "
            "model_directory: \"models/nano\"");
}

TEST(Messages, AStepIsWrittenColumnByColumn) {
  StepReport report{.step = 17,
                    .load = {.sequences_running = 2, .draining = true, .forming = true}};
  report.tokens.push_back({.key = {{7, 1}, 1},
                           .sequence = 4,
                           .token = {.token = 9, .logprob = -0.5f, .top = {{9, -0.5f}, {3, -2.0f}}},
                           .with_logprobs = true});
  report.tokens.push_back({.key = {{7, 2}, 3}, .sequence = 0, .token = {.token = 0}});
  EXPECT_EQ(wire::StepMessage(report).step().ShortDebugString(),
            "step: 17 keys { router: 7 number: 1 attempt: 1 } "
            "keys { router: 7 number: 2 attempt: 3 } sequence: 4 sequence: 0 token_ids: 9 "
            "token_ids: 0 logprobs { present: true sampled: -0.5 top_token_ids: 9 "
            "top_token_ids: 3 top_logprobs: -0.5 top_logprobs: -2 } logprobs { } "
            "load { sequences_running: 2 draining: true forming: true }");
  report.tokens.erase(report.tokens.begin());
  EXPECT_EQ(wire::StepMessage(report).step().logprobs_size(), 0) << "nobody asked";
}

TEST(Messages, LogProbabilitiesOfAPromptComeInSeveral) {
  PromptLogprobsOutput output{.key = {{7, 1}, 2}, .first = 0};
  output.entries.emplace_back();
  for (int i = 1; i < 2500; ++i) {
    output.entries.push_back(TokenLogprobs{.logprob = -1.0f * static_cast<float>(i)});
  }
  output.entries.back()->top = {{4, -0.5f}, {5, -2.0f}};
  const std::vector<v1::WorkerMessage> messages = wire::PromptLogprobsMessages(output);
  ASSERT_EQ(messages.size(), 3u);
  int first = 0;
  for (const v1::WorkerMessage& message : messages) {
    const v1::PromptLogprobs& part = message.prompt_logprobs();
    EXPECT_EQ(part.key().number(), 1u);
    EXPECT_EQ(part.key().attempt(), 2u);
    EXPECT_EQ(part.first(), static_cast<std::uint32_t>(first));
    for (int i = 0; i < part.logprobs_size(); ++i) {
      EXPECT_EQ(part.logprobs(i).present(), first + i > 0);
      EXPECT_EQ(part.logprobs(i).sampled(), -1.0f * static_cast<float>(first + i));
    }
    first += part.logprobs_size();
  }
  EXPECT_EQ(first, 2500);
  EXPECT_EQ(messages[0].prompt_logprobs().logprobs_size(), 1024);
  EXPECT_EQ(messages[2].prompt_logprobs().logprobs(2500 - 2049).ShortDebugString(),
            "present: true sampled: -2499 top_token_ids: 4 top_token_ids: 5 top_logprobs: -0.5 "
            "top_logprobs: -2");
  EXPECT_TRUE(wire::PromptLogprobsMessages({.first = 5}).empty());
}

TEST(Messages, AnEndSaysWhy) {
  const auto text = [](const EndedOutput& ended) {
    return wire::EndedMessage(ended).ended().ShortDebugString();
  };
  EXPECT_EQ(text({.key = {{7, 1}, 1},
                  .reason = EndReason::kHandedOver,
                  .tokens = 1,
                  .kv_transfer_bytes = 4096,
                  .cached_tokens = 128}),
            "key { router: 7 number: 1 attempt: 1 } reason: END_REASON_HANDED_OVER tokens: 1 "
            "kv_transfer_bytes: 4096 cached_tokens: 128");
  EXPECT_EQ(text({.key = {{7, 1}, 1},
                  .reason = EndReason::kError,
                  .status = absl::UnavailableError("draining: no")}),
            "key { router: 7 number: 1 attempt: 1 } reason: END_REASON_ERROR code: 14 "
            "message: \"draining: no\"");
}

TEST(Backoff, GrowsToItsBoundAndStartsAgain) {
  Backoff backoff({.first = absl::Milliseconds(50),
                   .longest = absl::Milliseconds(300),
                   .growth = 2.0,
                   .spread = 0.2});
  std::vector<absl::Duration> waits;
  for (int i = 0; i < 5; ++i) waits.push_back(backoff.Next(0.5));
  EXPECT_THAT(waits,
              ElementsAre(absl::Milliseconds(50), absl::Milliseconds(100), absl::Milliseconds(200),
                          absl::Milliseconds(300), absl::Milliseconds(300)));
  EXPECT_EQ(backoff.Next(0.0), absl::Milliseconds(240));
  EXPECT_LT(backoff.Next(0.999), absl::Milliseconds(360));
  backoff.Reset();
  EXPECT_EQ(backoff.Next(0.5), absl::Milliseconds(50));
}

TEST(StaticDiscovery, AlwaysAnswersTheSame) {
  StaticDiscovery discovery({"a:1", "b:2"});
  EXPECT_THAT(*discovery.Resolve(), ElementsAre("a:1", "b:2"));
  EXPECT_THAT(*discovery.Resolve(), ElementsAre("a:1", "b:2"));
}

}  // namespace
}  // namespace baleen::worker
