// The pure parts of the engine: what is refused at the door, block counts, and the manifest of a
// hand-over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "proto/contract/status.h"
#include "worker/engine/rules/handover.h"
#include "worker/engine/rules/reply_rules.h"
#include "worker/engine/rules/role.h"
#include "worker/engine/rules/start_check.h"

namespace baleen::worker {
namespace {

using contract::Reason;
using testing::ElementsAre;
using testing::HasSubstr;

StartLimits Limits() {
  return {.role = Role::kMixed,
          .has_data_plane = true,
          .context_tokens = 1000,
          .vocabulary_size = 64,
          .blocks_total = 10};
}

StartCommand Good() {
  return {.link = {.value = 1},
          .key = {.id = {.router = 1, .number = 1}, .attempt = 1},
          .leg = Leg::kPrefill,
          .prompt = std::vector<std::int32_t>(100, 5),
          .tokens_max = 50,
          .transfer = {.value = 9},
          .peer_address = "peer"};
}

struct Refusal {
  std::string name;
  std::function<void(StartCommand&, StartLimits&)> change;
  Reason reason = Reason::kInvalidRequest;
  std::string says;
};

std::vector<Refusal> Refusals() {
  using S = StartCommand;
  using L = StartLimits;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"empty prompt", [](S& s, L&) { s.prompt.clear(); }, Reason::kInvalidRequest, "empty"},
      {"no tokens to generate", [](S& s, L&) { s.tokens_max = 0; }, Reason::kInvalidRequest,
       "tokens_max 0"},
      {"beyond the context", [](S& s, L&) { s.tokens_max = 901; }, Reason::kPromptTooLong,
       "context of 1000"},
      {"sums do not wrap",
       [](S& s, L&) { s.tokens_max = std::numeric_limits<std::uint32_t>::max(); },
       Reason::kPromptTooLong, "4294967295"},
      {"token above the vocabulary", [](S& s, L&) { s.prompt[7] = 64; }, Reason::kInvalidRequest,
       "64 at index 7"},
      {"negative token", [](S& s, L&) { s.prompt[0] = -1; }, Reason::kInvalidRequest, "-1"},
      {"NaN temperature", [nan](S& s, L&) { s.sampling.temperature = nan; },
       Reason::kInvalidRequest, "temperature"},
      {"negative temperature", [](S& s, L&) { s.sampling.temperature = -1.0f; },
       Reason::kInvalidRequest, "temperature -1"},
      {"tiny temperature", [](S& s, L&) { s.sampling.temperature = 0.005f; },
       Reason::kInvalidRequest, "0.01"},
      {"hot temperature", [](S& s, L&) { s.sampling.temperature = 2.5f; }, Reason::kInvalidRequest,
       "2.5"},
      {"top_p zero", [](S& s, L&) { s.sampling.top_p = 0.0f; }, Reason::kInvalidRequest, "top_p"},
      {"top_p above one", [](S& s, L&) { s.sampling.top_p = 1.5f; }, Reason::kInvalidRequest,
       "top_p"},
      {"NaN top_p", [nan](S& s, L&) { s.sampling.top_p = nan; }, Reason::kInvalidRequest, "top_p"},
      {"too many logprobs", [](S& s, L&) { s.sampling.logprobs = 21; }, Reason::kInvalidRequest,
       "logprobs 21"},
      {"negative logprobs", [](S& s, L&) { s.sampling.logprobs = -2; }, Reason::kInvalidRequest,
       "logprobs -2"},
      {"no transfer id", [](S& s, L&) { s.transfer.value = 0; }, Reason::kInvalidRequest,
       "transfer id"},
      {"no peer", [](S& s, L&) { s.peer_address.clear(); }, Reason::kInvalidRequest, "0 bytes"},
      {"a peer address too long", [](S& s, L&) { s.peer_address.assign(4097, 'a'); },
       Reason::kInvalidRequest, "4096"},
      {"no data plane", [](S&, L& l) { l.has_data_plane = false; }, Reason::kInvalidRequest,
       "data plane"},
      {"prefill leg on a decode rank", [](S&, L& l) { l.role = Role::kDecode; },
       Reason::kInvalidRequest, "leg prefill is not for a decode worker"},
      {"whole leg on a prefill rank",
       [](S& s, L& l) {
         s.leg = Leg::kWhole;
         l.role = Role::kPrefill;
       },
       Reason::kInvalidRequest, "leg whole is not for a prefill worker"},
      {"more blocks than there are",
       [](S& s, L&) {
         s.leg = Leg::kWhole;
         s.tokens_max = 700;
       },
       Reason::kPromptTooLong, "13 KV blocks, this worker has 10"},
  };
}

std::vector<Refusal> RuleRefusals() {
  using S = StartCommand;
  using L = StartLimits;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"NaN min_p", [nan](S& s, L&) { s.sampling.min_p = nan; }, Reason::kInvalidRequest,
       "min_p nan is not in [0, 1]"},
      {"min_p above one", [](S& s, L&) { s.sampling.min_p = 1.5f; }, Reason::kInvalidRequest,
       "min_p 1.5"},
      {"no repetition penalty", [](S& s, L&) { s.sampling.repetition_penalty = 0.0f; },
       Reason::kInvalidRequest, "repetition_penalty 0 is not in (0, 2]"},
      {"NaN repetition penalty", [nan](S& s, L&) { s.sampling.repetition_penalty = nan; },
       Reason::kInvalidRequest, "repetition_penalty nan"},
      {"frequency penalty", [](S& s, L&) { s.sampling.frequency_penalty = -2.5f; },
       Reason::kInvalidRequest, "frequency_penalty -2.5 is not in [-2, 2]"},
      {"presence penalty", [](S& s, L&) { s.sampling.presence_penalty = 2.5f; },
       Reason::kInvalidRequest, "presence_penalty 2.5 is not in [-2, 2]"},
      {"NaN bias",
       [nan](S& s, L&) {
         s.sampling.biases = {{1, nan}};
       },
       Reason::kInvalidRequest, "logit_bias nan is not in [-100, 100]"},
      {"bias too large",
       [](S& s, L&) {
         s.sampling.biases = {{1, 101.0f}};
       },
       Reason::kInvalidRequest, "logit_bias 101"},
      {"bias outside of the vocabulary",
       [](S& s, L&) {
         s.sampling.biases = {{64, 1.0f}};
       },
       Reason::kInvalidRequest, "logit_bias has token 64, which is not in the vocabulary of 64"},
      {"a bias twice",
       [](S& s, L&) {
         s.sampling.biases = {{3, 1.0f}, {4, 1.0f}, {3, 2.0f}};
       },
       Reason::kInvalidRequest, "token 3 more than once"},
      {"stop token outside of the vocabulary",
       [](S& s, L&) {
         s.stop_token_ids = {5, -1};
       },
       Reason::kInvalidRequest, "stop_token_ids has token -1"},
      {"more tokens at least than at most", [](S& s, L&) { s.tokens_min = 51; },
       Reason::kInvalidRequest, "tokens_min 51 is above tokens_max 50"},
      {"a grammar nobody compiles", [](S& s, L&) { s.grammar.emplace(); }, Reason::kInvalidRequest,
       "without grammars"},
      {"too many prompt logprobs", [](S& s, L&) { s.prompt_logprobs = 21; },
       Reason::kInvalidRequest, "prompt_logprobs 21 is not in [0, 20]"},
      {"prompt logprobs where no prompt is computed",
       [](S& s, L&) {
         s.leg = Leg::kDecode;
         s.prompt_logprobs = 0;
       },
       Reason::kInvalidRequest, "does not compute the prompt"},
  };
}

TEST(CheckStart, RefusesWithTheReasonAndTheLimit) {
  std::vector<Refusal> refusals = Refusals();
  for (const Refusal& refusal : RuleRefusals()) refusals.push_back(refusal);
  for (const Refusal& refusal : refusals) {
    StartCommand start = Good();
    StartLimits limits = Limits();
    refusal.change(start, limits);
    const absl::Status status = CheckStart(start, limits);
    EXPECT_EQ(contract::ReasonOf(status), refusal.reason) << refusal.name << ": " << status;
    EXPECT_THAT(status.ToString(), HasSubstr(refusal.says)) << refusal.name;
  }
}

TEST(CheckStart, TakesWhatIsWithinTheLimits) {
  EXPECT_TRUE(CheckStart(Good(), Limits()).ok());
  StartCommand edge = Good();
  edge.tokens_max = 900;
  edge.sampling = {.temperature = 2.0f, .top_k = 5, .top_p = 1.0f, .seed = 1, .logprobs = 20};
  EXPECT_TRUE(CheckStart(edge, Limits()).ok());
  edge.sampling.temperature = 0.01f;
  edge.sampling.logprobs = 0;
  EXPECT_TRUE(CheckStart(edge, Limits()).ok());
  edge.sampling.min_p = 1.0f;
  edge.sampling.repetition_penalty = 2.0f;
  edge.sampling.frequency_penalty = -2.0f;
  edge.sampling.presence_penalty = 2.0f;
  edge.sampling.biases = {{0, -100.0f}, {63, 100.0f}};
  edge.stop_token_ids = {0, 63, 63};
  edge.tokens_min = edge.tokens_max;
  edge.prompt_logprobs = 20;
  EXPECT_TRUE(CheckStart(edge, Limits()).ok());
}

ModelInfo SomeModel() { return {.vocabulary_size = 64, .eos_token_ids = {1, 9, 64}}; }

TEST(ReplyRules, CountThePromptOnceAndTheReplyEachTime) {
  StartCommand start = Good();
  start.prompt = {5, 3, 5, 60};
  start.ignore_eos = true;
  start.sampling.repetition_penalty = 1.5f;
  ReplyRules rules(start, SomeModel());
  for (const std::int32_t token : {5, 7, 7, 0, 7}) rules.Add(token);
  const auto prompt = [](std::int32_t token, std::uint32_t times) {
    return TokenUse{.token = token, .in_reply = times, .in_prompt = true};
  };
  EXPECT_THAT(rules.uses(),
              ElementsAre(TokenUse{.token = 0, .in_reply = 1}, prompt(3, 0), prompt(5, 1),
                          TokenUse{.token = 7, .in_reply = 3}, prompt(60, 0)));
}

TEST(ReplyRules, CountOnlyWhatAPenaltyLooksAt) {
  StartCommand start = Good();
  start.ignore_eos = true;
  ReplyRules none(start, SomeModel());
  none.Add(5);
  EXPECT_TRUE(none.uses().empty());
  start.sampling.presence_penalty = 0.1f;
  ReplyRules reply(start, SomeModel());
  EXPECT_TRUE(reply.uses().empty());
  reply.Add(5);
  EXPECT_THAT(reply.uses(), ElementsAre(TokenUse{.token = 5, .in_reply = 1}));
}

TEST(ReplyRules, EndsAreBannedUntilThereAreEnoughTokens) {
  StartCommand start = Good();
  start.stop_token_ids = {30};
  start.tokens_min = 2;
  start.ignore_eos = true;
  ReplyRules rules(start, SomeModel());
  EXPECT_THAT(rules.banned(), testing::UnorderedElementsAre(30, 1, 9)) << "those that exist";
  rules.Add(5);
  EXPECT_EQ(rules.banned().size(), 3u);
  rules.Add(5);
  EXPECT_TRUE(rules.banned().empty());
  rules.Add(1);
  EXPECT_FALSE(rules.ended().has_value()) << "ignored";
  rules.Add(30);
  EXPECT_EQ(rules.ended(), EndReason::kStop) << "not ignored";
}

TEST(ReplyRules, AStopAtTheLastTokenIsAStop) {
  StartCommand start = Good();
  start.tokens_max = 2;
  ReplyRules length(start, SomeModel());
  length.Add(5);
  EXPECT_FALSE(length.ended().has_value());
  length.Add(5);
  EXPECT_EQ(length.ended(), EndReason::kLength);
  ReplyRules stop(start, SomeModel());
  stop.Add(5);
  stop.Add(9);
  EXPECT_EQ(stop.ended(), EndReason::kStop);
}

TEST(Blocks, CoverEveryTokenThatIsFed) {
  StartCommand start = Good();
  const auto blocks = [&start](std::uint32_t prompt, std::uint32_t tokens_max, Leg leg) {
    start.prompt.assign(prompt, 1);
    start.tokens_max = tokens_max;
    start.leg = leg;
    return BlocksNeeded(start);
  };
  EXPECT_EQ(blocks(64, 1, Leg::kWhole), 1u) << "the only token is never fed back";
  EXPECT_EQ(blocks(64, 2, Leg::kWhole), 2u);
  EXPECT_EQ(blocks(60, 5, Leg::kDecode), 1u);
  EXPECT_EQ(blocks(60, 6, Leg::kDecode), 2u);
  EXPECT_EQ(blocks(65, 1000, Leg::kPrefill), 2u) << "a prefill rank makes no reply";
}

TEST(Roles, TakeTheirLegs) {
  EXPECT_TRUE(Takes(Role::kMixed, Leg::kWhole));
  EXPECT_TRUE(Takes(Role::kPrefill, Leg::kPrefill));
  EXPECT_TRUE(Takes(Role::kDecode, Leg::kDecode));
  EXPECT_FALSE(Takes(Role::kPrefill, Leg::kDecode));
  EXPECT_FALSE(Takes(Role::kDecode, Leg::kWhole));
  for (const Role role : {Role::kPrefill, Role::kDecode, Role::kMixed}) {
    EXPECT_EQ(ParseRole(NameOf(role)), role);
  }
  EXPECT_FALSE(ParseRole("Prefill").has_value());
}

ModelInfo Model() {
  return {.digest = std::string(64, 'a'), .vocabulary_size = 64, .arithmetic = "one"};
}

Handover HandoverOf(const std::vector<std::int32_t>& prompt) {
  const auto tokens = static_cast<std::uint32_t>(prompt.size());
  return {.prompt_tokens = tokens,
          .first_token = 63,
          .sampling_position = tokens,
          .prompt_hash = HashPrompt(prompt),
          .model_hash = HashModel(Model())};
}

TEST(HandoverManifest, RoundTripsInAFixedLayout) {
  const Handover handover{.prompt_tokens = 0x01020304,
                          .first_token = -2,
                          .sampling_position = 5,
                          .prompt_hash = 0x1122334455667788ULL,
                          .model_hash = 0xffeeddccbbaa0099ULL};
  const std::string bytes = Serialize(handover);
  EXPECT_EQ(bytes, std::string("BKV1\x04\x03\x02\x01\xfe\xff\xff\xff\x05\0\0\0"
                               "\x88\x77\x66\x55\x44\x33\x22\x11\x99\0\xaa\xbb\xcc\xdd\xee\xff",
                               32));
  const auto parsed = ParseHandover(bytes);
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(*parsed, handover);
}

TEST(HandoverManifest, AnythingElseIsRefused) {
  const std::string good = Serialize({});
  std::string other_tag = good;
  other_tag[3] = '2';
  for (const std::string& bytes :
       {std::string(), good.substr(1), good + "x", other_tag, std::string(32, '\0')}) {
    EXPECT_EQ(ParseHandover(bytes).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(HandoverManifest, MustContinueThePromptOnTheModel) {
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  const Handover good = HandoverOf(prompt);
  EXPECT_TRUE(VerifyHandover(good, prompt, Model()).ok());
  const auto refused = [&](const std::function<void(Handover&)>& change) {
    Handover handover = good;
    change(handover);
    return VerifyHandover(handover, prompt, Model()).ToString();
  };
  EXPECT_THAT(refused([](Handover& h) { h.prompt_tokens = 4; }), HasSubstr("4 tokens"));
  EXPECT_THAT(refused([](Handover& h) { h.sampling_position = 4; }), HasSubstr("position 4"));
  EXPECT_THAT(refused([](Handover& h) { h.prompt_hash ^= 1; }), HasSubstr("another prompt"));
  EXPECT_THAT(refused([](Handover& h) { h.model_hash ^= 1; }), HasSubstr("another checkpoint"));
  EXPECT_THAT(refused([](Handover& h) { h.first_token = 64; }), HasSubstr("64"));
  EXPECT_THAT(refused([](Handover& h) { h.first_token = -1; }), HasSubstr("-1"));
  EXPECT_NE(HashPrompt(std::vector<std::int32_t>{1, 2}),
            HashPrompt(std::vector<std::int32_t>{2, 1}));
}

}  // namespace
}  // namespace baleen::worker
