// Frames of workers: what is taken, what is refused, and that nothing gets lost on the way.
#include "router/cluster/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "proto/contract/limits.h"
#include "tests/fakes/dispatch_twins.h"

namespace baleen::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

v1::StepOutput GoodStep() {
  v1::StepOutput step;
  for (int i = 0; i < 2; ++i) {
    v1::RequestKey& key = *step.add_keys();
    key.set_router(5);
    key.set_number(static_cast<std::uint64_t>(i) + 1);
    key.set_attempt(3);
    step.add_sequence(static_cast<std::uint32_t>(i) * 10);
    step.add_token_ids(100 + i);
    step.add_logprobs();
  }
  v1::Logprobs& logprobs = *step.mutable_logprobs(1);
  logprobs.set_present(true);
  logprobs.set_sampled(-0.5f);
  logprobs.add_top_token_ids(7);
  logprobs.add_top_logprobs(-0.25f);
  return step;
}

TEST(Wire, StepsComeInColumnByColumn) {
  const auto tokens = FromWire(GoodStep(), MakeWorkerInfo("d", Role::kDecode));
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  ASSERT_EQ(tokens->size(), 2u);
  EXPECT_EQ((*tokens)[1].key, (contract::RequestKey{{5, 2}, 3}));
  EXPECT_EQ((*tokens)[1].sequence, 10u);
  EXPECT_EQ((*tokens)[1].token.id, 101);
  EXPECT_FALSE((*tokens)[0].token.logprobs.has_value());
  ASSERT_TRUE((*tokens)[1].token.logprobs.has_value());
  EXPECT_EQ((*tokens)[1].token.logprobs->sampled, -0.5f);
  EXPECT_THAT((*tokens)[1].token.logprobs->top, ElementsAre(Pair(7, -0.25f)));
  EXPECT_TRUE(FromWire(v1::StepOutput(), MakeWorkerInfo("d", Role::kDecode))->empty());
}

struct StepCase {
  std::string name;
  std::function<void(v1::StepOutput&)> change;
  std::string message;
};

class BadSteps : public ::testing::TestWithParam<StepCase> {};

TEST_P(BadSteps, AreRefused) {
  v1::StepOutput step = GoodStep();
  GetParam().change(step);
  WorkerInfo from = MakeWorkerInfo("d", Role::kDecode);
  from.sequences_max = 2;
  const auto tokens = FromWire(step, from);
  EXPECT_EQ(tokens.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokens.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadSteps,
    ::testing::Values(
        StepCase{"FewerSequences", [](v1::StepOutput& s) { s.mutable_sequence()->RemoveLast(); },
                 "lists of 2 keys, 1 sequences"},
        StepCase{"MoreTokens", [](v1::StepOutput& s) { s.add_token_ids(1); }, "3 tokens"},
        StepCase{"FewerLogprobs", [](v1::StepOutput& s) { s.mutable_logprobs()->RemoveLast(); },
                 "1 log-probabilities"},
        StepCase{"MoreEntriesThanSequences",
                 [](v1::StepOutput& s) {
                   s.clear_logprobs();
                   s.add_keys();
                   s.add_sequence(0);
                   s.add_token_ids(0);
                 },
                 "3 entries, sequences_max 2"},
        StepCase{"TokenOutsideOfVocabulary", [](v1::StepOutput& s) { s.set_token_ids(0, 512); },
                 "token 512, vocabulary 512"},
        StepCase{"NegativeToken", [](v1::StepOutput& s) { s.set_token_ids(0, -1); }, "token -1"},
        StepCase{"TopWithoutItsLogprob",
                 [](v1::StepOutput& s) { s.mutable_logprobs(1)->add_top_token_ids(3); },
                 "2 ids and 1 log-probabilities"},
        StepCase{"TopOutsideOfVocabulary",
                 [](v1::StepOutput& s) { s.mutable_logprobs(1)->set_top_token_ids(0, 999); },
                 "log-probability of token 999"},
        StepCase{"TooManyTop",
                 [](v1::StepOutput& s) {
                   for (int i = 0; i < 20; ++i) {
                     s.mutable_logprobs(1)->add_top_token_ids(i);
                     s.mutable_logprobs(1)->add_top_logprobs(-1.0f);
                   }
                 },
                 "limit 20"},
        StepCase{"NaN", [](v1::StepOutput& s) { s.mutable_logprobs(1)->set_sampled(kNaN); },
                 "not a number"},
        StepCase{"TopNaN",
                 [](v1::StepOutput& s) { s.mutable_logprobs(1)->set_top_logprobs(0, kNaN); },
                 "not a number"}),
    [](const auto& info) { return info.param.name; });

v1::PromptLogprobs GoodPromptLogprobs() {
  v1::PromptLogprobs logprobs;
  logprobs.mutable_key()->set_router(5);
  logprobs.mutable_key()->set_number(6);
  logprobs.mutable_key()->set_attempt(1);
  logprobs.add_logprobs();
  v1::Logprobs& second = *logprobs.add_logprobs();
  second.set_present(true);
  second.set_sampled(-3.0f);
  second.add_top_token_ids(9);
  second.add_top_logprobs(-0.5f);
  return logprobs;
}

TEST(Wire, PromptLogprobsKeepEveryField) {
  const auto frame = FromWire(GoodPromptLogprobs(), MakeWorkerInfo("p", Role::kPrefill));
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->key, (contract::RequestKey{{5, 6}, 1}));
  EXPECT_EQ(frame->logprobs.first, 0u);
  ASSERT_EQ(frame->logprobs.entries.size(), 2u);
  EXPECT_FALSE(frame->logprobs.entries[0].has_value());
  EXPECT_EQ(frame->logprobs.entries[1]->sampled, -3.0f);
  EXPECT_THAT(frame->logprobs.entries[1]->top, ElementsAre(Pair(9, -0.5f)));
}

TEST(Wire, BadPromptLogprobsAreRefused) {
  using Change = std::function<void(v1::PromptLogprobs&)>;
  const std::vector<std::pair<std::string, Change>> cases = {
      {"1025 entries from token 1 on, limits 1024 and 4096",
       [](v1::PromptLogprobs& p) {
         p.set_first(1);
         while (p.logprobs_size() < 1025) p.add_logprobs();
       }},
      {"from token 4097 on", [](v1::PromptLogprobs& p) { p.set_first(4097); }},
      {"from token 4294967295 on", [](v1::PromptLogprobs& p) { p.set_first(0xffffffffu); }},
      {"token 5 has none", [](v1::PromptLogprobs& p) { p.set_first(5); }},
      {"token 0 has one", [](v1::PromptLogprobs& p) { *p.mutable_logprobs(0) = p.logprobs(1); }},
      {"log-probability of token 512",
       [](v1::PromptLogprobs& p) { p.mutable_logprobs(1)->set_top_token_ids(0, 512); }},
      {"not a number", [](v1::PromptLogprobs& p) { p.mutable_logprobs(1)->set_sampled(kNaN); }},
      {"limit 20",
       [](v1::PromptLogprobs& p) {
         for (int i = 0; i < 20; ++i) {
           p.mutable_logprobs(1)->add_top_token_ids(i);
           p.mutable_logprobs(1)->add_top_logprobs(-1.0f);
         }
       }},
  };
  for (const auto& [message, change] : cases) {
    v1::PromptLogprobs logprobs = GoodPromptLogprobs();
    change(logprobs);
    const auto frame = FromWire(logprobs, MakeWorkerInfo("p", Role::kPrefill));
    EXPECT_EQ(frame.status().code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(frame.status().message()), HasSubstr(message));
  }
}

TEST(Wire, StartKeepsTheRulesOfTheReply) {
  StartFrame start{.prompt = std::make_shared<const TokenIds>(TokenIds{4, 5}),
                   .sampling = {.min_p = 0.25f,
                                .repetition_penalty = 1.5f,
                                .frequency_penalty = -1.0f,
                                .presence_penalty = 2.0f,
                                .biases = {{4, -100.0f}, {9, 1.5f}}},
                   .stop_token_ids = {2, 3},
                   .tokens_min = 6,
                   .prompt_logprobs = 0};
  start.grammar = std::make_shared<const GrammarSpec>(
      GrammarSpec{{text::GrammarKind::kJsonSchema, "{}"}, std::int32_t{77}});
  start.block_hashes = std::make_shared<const BlockHashes>(
      BlockHashes{{{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}});
  const v1::Start wire = ToWire(RouterFrame(start)).start();
  EXPECT_EQ(wire.sampling().min_p(), 0.25f);
  EXPECT_EQ(wire.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(wire.sampling().frequency_penalty(), -1.0f);
  EXPECT_EQ(wire.sampling().presence_penalty(), 2.0f);
  EXPECT_THAT(wire.sampling().bias_token_ids(), ElementsAre(4, 9));
  EXPECT_THAT(wire.sampling().biases(), ElementsAre(-100.0f, 1.5f));
  EXPECT_THAT(wire.stop_token_ids(), ElementsAre(2, 3));
  EXPECT_EQ(wire.tokens_min(), 6u);
  EXPECT_TRUE(wire.has_prompt_logprobs());
  EXPECT_EQ(wire.grammar().json_schema(), "{}");
  EXPECT_EQ(wire.grammar().after_token(), 77);
  EXPECT_EQ(wire.block_hashes().size(), 16u);
  EXPECT_EQ(wire.block_hashes()[15], 15);
  for (const auto kind : {text::GrammarKind::kRegex, text::GrammarKind::kLark}) {
    start.grammar = std::make_shared<const GrammarSpec>(GrammarSpec{{kind, "text"}, std::nullopt});
    const v1::Grammar grammar = ToWire(RouterFrame(start)).start().grammar();
    EXPECT_EQ(kind == text::GrammarKind::kRegex ? grammar.regex() : grammar.lark(), "text");
    EXPECT_FALSE(grammar.has_after_token());
  }
  const StartFrame plain{.prompt = start.prompt};
  EXPECT_FALSE(ToWire(RouterFrame(plain)).start().sampling().has_repetition_penalty());
  EXPECT_FALSE(ToWire(RouterFrame(plain)).start().has_prompt_logprobs());
  EXPECT_FALSE(ToWire(RouterFrame(plain)).start().has_grammar());
}

TEST(Wire, EndedKeepsReasonCodeAndASafeMessage) {
  v1::Ended ended;
  ended.mutable_key()->set_number(4);
  ended.set_reason(v1::END_REASON_ERROR);
  ended.set_tokens(9);
  ended.set_code(8);
  ended.set_message("full\n" + std::string(1000, 'x'));
  ended.set_kv_transfer_bytes(123);
  ended.set_cached_tokens(64);
  const auto frame = FromWire(ended);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->reason, EndReason::kError);
  EXPECT_EQ(frame->key.id.number, 4u);
  EXPECT_EQ(frame->tokens, 9u);
  EXPECT_EQ(frame->kv_transfer_bytes, 123u);
  EXPECT_EQ(frame->cached_tokens, 64u);
  EXPECT_EQ(frame->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(frame->status.message().size(), 512u);
  EXPECT_EQ(std::string(frame->status.message().substr(0, 6)), "full?x");

  ended.set_code(0);
  EXPECT_EQ(FromWire(ended)->status.code(), absl::StatusCode::kInternal) << "an error is never OK";
  ended.set_code(99);
  EXPECT_EQ(FromWire(ended)->status.code(), absl::StatusCode::kInternal);
  ended.set_reason(v1::END_REASON_STOP);
  EXPECT_TRUE(FromWire(ended)->status.ok());
  ended.set_reason(v1::END_REASON_UNSPECIFIED);
  EXPECT_EQ(FromWire(ended).status().code(), absl::StatusCode::kInvalidArgument);
}

std::string HashBytes(std::size_t hashes, char first) {
  std::string bytes(hashes * 16, 'h');
  if (!bytes.empty()) bytes[0] = first;
  return bytes;
}

TEST(Wire, CacheEventsComeInAsHashesInTheirOrder) {
  v1::CacheEvents events;
  events.set_cleared(true);
  events.set_stored(HashBytes(2, 's'));
  events.set_evicted(HashBytes(1, 'e'));
  const auto frame = FromWire(events);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_TRUE(frame->cleared);
  ASSERT_EQ(frame->stored.size(), 2u);
  ASSERT_EQ(frame->evicted.size(), 1u);
  EXPECT_EQ(frame->stored[0].bytes[0], 's');
  EXPECT_EQ(frame->stored[1].bytes[15], 'h');
  EXPECT_EQ(frame->evicted[0].bytes[0], 'e');
  EXPECT_TRUE(FromWire(v1::CacheEvents()).ok());
}

TEST(Wire, CacheEventsWithPartsOfHashesOrTooManyAreRefused) {
  v1::CacheEvents events;
  events.set_stored(HashBytes(2, 's') + "x");
  EXPECT_EQ(FromWire(events).status().code(), absl::StatusCode::kInvalidArgument);
  events.set_stored("");
  events.set_evicted("short");
  EXPECT_EQ(FromWire(events).status().code(), absl::StatusCode::kInvalidArgument);
  events.set_evicted(HashBytes(contract::kCacheHashesPerMessage, 'e'));
  EXPECT_TRUE(FromWire(events).ok());
  events.set_stored(HashBytes(1, 's'));
  EXPECT_EQ(FromWire(events).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Wire, AMeasuredRateThatIsNoNumberIsNotKnown) {
  v1::LoadReport load;
  load.set_kv_blocks_cached(7);
  load.set_prompt_tokens_per_second(1234.5f);
  EXPECT_EQ(FromWire(load).kv_blocks_cached, 7u);
  EXPECT_EQ(FromWire(load).prompt_tokens_per_second, 1234.5f);
  for (const float rate :
       {-1.0f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    load.set_prompt_tokens_per_second(rate);
    EXPECT_EQ(FromWire(load).prompt_tokens_per_second, 0.0f);
  }
}

TEST(Wire, HelloKeepsEveryField) {
  v1::Hello hello;
  hello.set_worker("decode-1.2");
  hello.set_incarnation(3);
  hello.set_role(v1::ROLE_DECODE);
  hello.set_group(1);
  hello.set_rank(2);
  hello.set_kv_blocks_total(10);
  hello.set_sequences_max(11);
  hello.set_step_tokens_max(12);
  hello.set_data_plane_address(std::string("\0\1", 2));
  hello.set_metrics_address("host:1");
  hello.set_model_directory("dir");
  v1::ModelIdentity& model = *hello.mutable_model();
  model.set_name("nano");
  model.set_digest("d");
  model.set_context_tokens(13);
  model.set_vocabulary_size(14);
  model.add_eos_token_ids(1);
  model.set_kv_block_bytes(15);
  model.set_arithmetic("a");
  const auto info = FromWire(hello);
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->name, "decode-1.2");
  EXPECT_EQ(info->incarnation, 3u);
  EXPECT_EQ(info->role, Role::kDecode);
  EXPECT_EQ(info->group, 1u);
  EXPECT_EQ(info->rank, 2u);
  EXPECT_EQ(info->kv_blocks_total, 10u);
  EXPECT_EQ(info->sequences_max, 11u);
  EXPECT_EQ(info->step_tokens_max, 12u);
  EXPECT_EQ(info->data_plane_address, std::string("\0\1", 2));
  EXPECT_EQ(info->metrics_address, "host:1");
  EXPECT_EQ(info->model_directory, "dir");
  EXPECT_EQ(info->model, (ModelIdentity{"nano", "d", 13, 14, {1}, 15, "a"}));
  hello.clear_role();
  EXPECT_EQ(FromWire(hello).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Wire, StartKeepsEveryField) {
  const StartFrame start{
      .key = {{1, 2}, 3},
      .leg = Leg::kPrefill,
      .prompt = std::make_shared<const TokenIds>(TokenIds{4, 5}),
      .sampling = {.temperature = 0.5f, .top_k = 6, .top_p = 0.75f, .seed = 7, .logprobs = 8},
      .tokens_max = 9,
      .ignore_eos = true,
      .time_left = absl::Microseconds(2500),
      .transfer = {10},
      .peer_address = "peer"};
  const v1::RouterMessage message = ToWire(RouterFrame(start));
  const v1::Start& wire = message.start();
  EXPECT_EQ(wire.key().router(), 1u);
  EXPECT_EQ(wire.key().number(), 2u);
  EXPECT_EQ(wire.key().attempt(), 3u);
  EXPECT_EQ(wire.leg(), v1::LEG_PREFILL);
  EXPECT_THAT(wire.prompt_token_ids(), ElementsAre(4, 5));
  EXPECT_EQ(wire.sampling().temperature(), 0.5f);
  EXPECT_EQ(wire.sampling().top_k(), 6u);
  EXPECT_EQ(wire.sampling().top_p(), 0.75f);
  EXPECT_EQ(wire.sampling().seed(), 7u);
  EXPECT_EQ(wire.sampling().logprobs(), 8);
  EXPECT_EQ(wire.tokens_max(), 9u);
  EXPECT_TRUE(wire.ignore_eos());
  EXPECT_EQ(wire.deadline_ms(), 2u);
  EXPECT_EQ(wire.transfer(), 10u);
  EXPECT_EQ(wire.peer_data_plane_address(), "peer");
}

TEST(Wire, DeadlinesAreNeverTakenForNone) {
  StartFrame start{.prompt = std::make_shared<const TokenIds>(TokenIds{4})};
  const auto deadline_ms = [&start](absl::Duration left) {
    start.time_left = left;
    return ToWire(RouterFrame(start)).start().deadline_ms();
  };
  EXPECT_EQ(deadline_ms(absl::InfiniteDuration()), 0u);
  EXPECT_EQ(deadline_ms(absl::ZeroDuration()), 1u);
  EXPECT_EQ(deadline_ms(-absl::Seconds(5)), 1u);
  EXPECT_EQ(deadline_ms(absl::Hours(100'000)), std::numeric_limits<std::uint32_t>::max());
}

TEST(Wire, SmallFramesKeepTheirKeys) {
  const contract::RequestKey key{{1, 2}, 3};
  EXPECT_EQ(ToWire(RouterFrame(CancelFrame{key})).cancel().key().number(), 2u);
  EXPECT_EQ(ToWire(RouterFrame(ReleaseFrame{key})).release().key().attempt(), 3u);
  EXPECT_TRUE(ToWire(RouterFrame(DrainFrame{})).has_drain());
  const v1::RouterMessage welcome =
      ToWire(WelcomeFrame{.router = 4, .heartbeat_ms = 5, .lease_ms = 6});
  EXPECT_EQ(welcome.welcome().router(), 4u);
  EXPECT_EQ(welcome.welcome().heartbeat_ms(), 5u);
  EXPECT_EQ(welcome.welcome().lease_ms(), 6u);
}

}  // namespace
}  // namespace baleen::router
