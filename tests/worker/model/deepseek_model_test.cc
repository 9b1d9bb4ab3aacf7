// The promises of Model::Step on real checkpoints: the same bits whatever the chunking, the
// neighbours and the memory; faults stay with their sequence; limits are checked.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/contract/status.h"
#include "tests/worker/model/sequence_run.h"

namespace baleen::worker {
namespace {

constexpr char kNano[] = "models/nano";

class EveryModel : public testing::TestWithParam<std::string> {
 protected:
  std::string directory() const { return GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(Models, EveryModel,
                         testing::Values(kNano, "tests/golden/v3_q_lora", "tests/golden/v3_fp8_mtp",
                                         "tests/golden/v3_moonlight", "tests/golden/v3_float32",
                                         "tests/golden/v3_dense", "tests/golden/v2_lite",
                                         "tests/golden/v2_grouped_fp8_tied"),
                         [](const auto& info) {
                           return info.param.substr(info.param.rfind('/') + 1);
                         });

TEST_P(EveryModel, ChunksOfAPromptGiveTheSameBits) {
  LoadedModel model(directory());
  const std::vector<std::int32_t> prompt =
      RandomTokens(97, model.model().info().vocabulary_size, 1);
  for (const SampleSpec& spec : {kGreedy, kAllRules}) {
    const Sequence sequence(prompt, Blocks(3, 2), spec);
    const Outcome whole = RunAlone(model, sequence, 97, 3);
    EXPECT_EQ(whole.prompt.size(), 96u);
    for (const std::size_t chunk : {1, 7, 64}) {
      model.ClearCache();
      EXPECT_EQ(RunAlone(model, sequence, chunk, 3), whole) << chunk;
    }
  }
}

TEST_P(EveryModel, NeighboursMemoryAndBlocksDoNotMatter) {
  LoadedModel model(directory());
  const std::uint32_t vocabulary = model.model().info().vocabulary_size;
  const std::vector<std::int32_t> prompt = RandomTokens(70, vocabulary, 2);
  // Other memory contents, other blocks, another place among others that start at other times and
  // lengths.
  LoadedModel crowded(directory(), 64, {}, std::byte{0});
  for (const SampleSpec& spec : {kGreedy, kAllRules}) {
    model.ClearCache();
    const Outcome alone = RunAlone(model, Sequence(prompt, Blocks(0, 2), spec), 70, 4);
    std::vector<Sequence> sequences;
    for (std::uint32_t i = 0; i < 7; ++i) {
      sequences.emplace_back(RandomTokens(5 + 13 * i, vocabulary, 100 + i), Blocks(4 * i + 4, 2),
                             SampleSpec{.temperature = 1.0f, .seed = i, .logprobs = 20});
      if (i == 3) {
        sequences.emplace_back(prompt, Blocks(40, 2), spec);
      }
    }
    while (sequences[4].generated() < 4) {
      std::vector<SequenceStep> steps;
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        steps.push_back(sequences[i].Next(9 + 8 * i));
      }
      const std::vector<SampledToken> sampled = crowded.Step(steps);
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        sequences[i].Take(sampled[i]);
      }
    }
    EXPECT_EQ(sequences[4].End(crowded), alone);
  }
}

// What a replay after failover does: generated tokens again, several in one absorbed pass.
TEST_P(EveryModel, SeveralAbsorbedTokensAtOnceGiveTheBitsOfOneByOne) {
  LoadedModel model(directory());
  const std::uint32_t vocabulary = model.model().info().vocabulary_size;
  const std::vector<std::int32_t> tokens = RandomTokens(80, vocabulary, 3);
  const std::vector<std::uint32_t> table = Blocks(5, 2);
  const auto absorb = [&](std::size_t chunk) {
    model.ClearCache();
    const SequenceStep prompt{.tokens = std::span(tokens).first(55), .block_table = table};
    model.Step({&prompt, 1});
    std::vector<SampledToken> sampled;
    for (std::size_t at = 55; at < tokens.size(); at += chunk) {
      const SequenceStep step{
          .tokens = std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at)),
          .position = static_cast<std::uint32_t>(at),
          .block_table = table,
          .form = AttentionForm::kAbsorbed,
          .sample = &kGreedy};
      sampled = model.Step({&step, 1});
    }
    return Outcome{
        .tokens = {sampled[0].token}, .top = sampled[0].top, .kv = model.KvOf(table, 80)};
  };
  const Outcome one_by_one = absorb(1);
  EXPECT_EQ(absorb(25), one_by_one);
  EXPECT_EQ(absorb(4), one_by_one);
}

// Past the first split of 512 keys, in both forms.
TEST(DeepSeekModel, LongPromptsGiveTheSameBitsInChunks) {
  LoadedModel model(kNano);
  const Sequence sequence(RandomTokens(540, 512, 4), Blocks(1, 9));
  const Outcome whole = RunAlone(model, sequence, 500, 3);
  for (const std::size_t chunk : {77, 256}) {
    model.ClearCache();
    EXPECT_EQ(RunAlone(model, sequence, chunk, 3), whole) << chunk;
  }
}

TEST(DeepSeekModel, ReasonsToTheAnswer) {
  std::ifstream stream("models/nano/tokenizer.json");
  const nlohmann::json tokenizer = nlohmann::json::parse(stream);
  std::vector<std::string> text(512);
  for (const auto& [piece, id] : tokenizer.at("model").at("vocab").items()) {
    text.at(id.get<std::size_t>()) = piece;
  }
  for (const nlohmann::json& token : tokenizer.at("added_tokens")) {
    text.at(token.at("id").get<std::size_t>()) = token.at("content").get<std::string>();
  }
  // "What is 347 + 589?" in the chat template.
  std::ifstream golden_stream("tests/golden/nano/golden.json");
  const nlohmann::json golden = nlohmann::json::parse(golden_stream);
  auto prompt = golden.at("prompts").at(0).at("tokens").get<std::vector<std::int32_t>>();
  prompt.resize(golden.at("prompts").at(0).at("prompt_tokens").get<std::size_t>());

  LoadedModel model(kNano);
  Sequence sequence(prompt, Blocks(0, 4));
  std::string reply;
  while (sequence.generated() < 200 && reply.find("sentence") == std::string::npos) {
    const SequenceStep step = sequence.Next(prompt.size());
    const std::vector<SampledToken> sampled = model.Step({&step, 1});
    sequence.Take(sampled[0]);
    reply += text.at(static_cast<std::size_t>(sampled[0].token));
  }
  EXPECT_THAT(reply, testing::HasSubstr("936"));
  EXPECT_THAT(reply, testing::HasSubstr("</think>"));
}

TEST(DeepSeekModel, SamplingDependsOnSeedAndPositionOnly) {
  LoadedModel model(kNano);
  const std::vector<std::int32_t> prompt = RandomTokens(20, 512, 5);
  const auto sample = [&](std::uint64_t seed) {
    return RunAlone(model, Sequence(prompt, Blocks(0, 1), {.temperature = 2.0f, .seed = seed}), 20,
                    8)
        .tokens;
  };
  EXPECT_EQ(sample(7), sample(7));
  EXPECT_NE(sample(7), sample(8));
}

TEST(DeepSeekModel, DescribesItself) {
  LoadedModel model(kNano);
  const ModelInfo& info = model.model().info();
  EXPECT_EQ(info.name, "nano");
  EXPECT_EQ(info.digest.size(), 64u);
  EXPECT_EQ(info.context_tokens, 4096u);
  EXPECT_EQ(info.vocabulary_size, 512u);
  EXPECT_EQ(info.kv_block_bytes, 4u * 64 * (128 + 32) * 2);
  EXPECT_EQ(info.arithmetic, "baleen-bf16-1");
  EXPECT_EQ(info.checkpoint_bytes, std::filesystem::file_size("models/nano/model.safetensors"));
}

TEST(DeepSeekModel, LogProbabilitiesAreReportedOnlyOnRequest) {
  LoadedModel model(kNano);
  const std::vector<std::int32_t> prompt = {0, 5, 6};
  const std::vector<std::uint32_t> table = {9};
  for (const std::int32_t count : {-1, 0, 1, 20}) {
    const SampleSpec spec{.logprobs = count};
    const SequenceStep step{.tokens = prompt, .block_table = table, .sample = &spec};
    const SampledToken sampled = model.Step({&step, 1})[0];
    EXPECT_EQ(sampled.top.size(), static_cast<std::size_t>(std::max(count, 0)));
    EXPECT_EQ(sampled.logprob < 0.0f, count >= 0);
    for (std::size_t i = 1; i < sampled.top.size(); ++i) {
      EXPECT_LE(sampled.top[i].second, sampled.top[i - 1].second);
    }
  }
}

// The log-probabilities of a prompt's token are those that sampling it would have reported.
TEST_P(EveryModel, PromptTokensAreWorthWhatSamplingThemWouldSay) {
  LoadedModel model(directory());
  const std::vector<std::int32_t> prompt =
      RandomTokens(12, model.model().info().vocabulary_size, 6);
  const std::vector<std::uint32_t> table = {3};
  const SequenceStep scored{.tokens = prompt,
                            .block_table = table,
                            .followers = std::span(prompt).subspan(1),
                            .followers_top = 20};
  const SampledToken answer = model.Step({&scored, 1})[0];
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.token, -1);
  ASSERT_EQ(answer.followers.size(), prompt.size() - 1);
  for (std::size_t i = 1; i < prompt.size(); ++i) {
    const SampleSpec only_this{.logprobs = 20, .biases = {{prompt[i], 100.0f}}};
    const SequenceStep step{
        .tokens = std::span(prompt).first(i), .block_table = table, .sample = &only_this};
    const SampledToken sampled = model.Step({&step, 1})[0];
    EXPECT_EQ(sampled.token, prompt[i]);
    EXPECT_EQ(answer.followers[i - 1], (TokenLogprobs{sampled.logprob, sampled.top})) << i;
  }
}

TEST(DeepSeekModel, RulesChooseTheTokenAndLeaveLogProbabilitiesAlone) {
  LoadedModel model(kNano);
  const std::vector<std::int32_t> prompt = RandomTokens(20, 512, 5);
  const std::vector<std::uint32_t> table = {9};
  const auto step_with = [&](const SampleSpec& spec) {
    return SequenceStep{.tokens = prompt, .block_table = table, .sample = &spec};
  };
  const SequenceStep plain = step_with(kGreedy);
  const SampledToken best = model.Step({&plain, 1})[0];

  SequenceStep banned = step_with(kGreedy);
  const std::vector<std::int32_t> first_two = {best.top[0].first, best.top[1].first};
  banned.banned = first_two;
  const SampledToken third = model.Step({&banned, 1})[0];
  EXPECT_EQ(third.token, best.top[2].first);
  EXPECT_EQ(third.logprob, best.top[2].second);
  EXPECT_EQ(third.top, best.top);

  SomeTokens mask;
  SequenceStep masked = step_with(kGreedy);
  masked.mask = &mask;
  const auto allowed =
      std::ranges::find_if(best.top, [&](const auto& entry) { return mask.Allows(entry.first); });
  EXPECT_EQ(model.Step({&masked, 1})[0].token, allowed->first);

  const SampleSpec unlikely{.logprobs = 20, .frequency_penalty = 2.0f};
  SequenceStep penalized = step_with(unlikely);
  const std::vector<TokenUse> uses = {{.token = best.token, .in_reply = 1000}};
  penalized.uses = uses;
  EXPECT_EQ(model.Step({&penalized, 1})[0].token, best.top[1].first);
  EXPECT_EQ(model.Step({&penalized, 1})[0].top, best.top);
}

// A mask that goes wrong, or that leaves nothing, is the end of its sequence only.
TEST(DeepSeekModel, AMaskWithoutATokenFailsItsSequenceOnly) {
  class Mask final : public TokenMask {
   public:
    explicit Mask(absl::StatusOr<std::vector<std::uint32_t>> words) : words_(std::move(words)) {}
    absl::StatusOr<std::span<const std::uint32_t>> Await() override {
      if (!words_.ok()) return words_.status();
      return *words_;
    }

   private:
    absl::StatusOr<std::vector<std::uint32_t>> words_;
  };
  LoadedModel model(kNano);
  const std::vector<std::int32_t> prompt = {0, 5, 6};
  const std::vector<std::uint32_t> tables[] = {{0}, {1}, {2}, {3}};
  Mask late(absl::DeadlineExceededError("no mask in time"));
  Mask none(std::vector<std::uint32_t>(16));
  Mask empty(std::vector<std::uint32_t>{});
  std::vector<SequenceStep> steps;
  for (const auto& table : tables) {
    steps.push_back({.tokens = prompt, .block_table = table, .sample = &kGreedy});
  }
  const SampledToken alone = model.Step({&steps[3], 1})[0];
  steps[0].mask = &late;
  steps[1].mask = &none;
  steps[2].mask = &empty;
  const std::vector<SampledToken> sampled = model.Step(steps);
  EXPECT_EQ(sampled[0].status, absl::DeadlineExceededError("no mask in time"));
  for (const std::size_t i : {1, 2}) {
    EXPECT_EQ(contract::ReasonOf(sampled[i].status), contract::Reason::kInvalidRequest);
    EXPECT_THAT(sampled[i].status.ToString(), testing::HasSubstr("allow no token at position 3"));
  }
  for (const std::size_t i : {0, 1, 2}) EXPECT_EQ(sampled[i].token, -1);
  EXPECT_EQ(sampled[3].token, alone.token);
  EXPECT_EQ(sampled[3].top, alone.top);
}

// Waiting for a mask is not to hold up what could be done meanwhile.
TEST(DeepSeekModel, MasksAreAwaitedWhenOtherSequencesHaveTheirTokens) {
  class Watching final : public TokenMask {
   public:
    absl::StatusOr<std::span<const std::uint32_t>> Await() override {
      seen = other->token;
      return words_;
    }
    const SampledToken* other = nullptr;
    std::int32_t seen = -1;

   private:
    std::vector<std::uint32_t> words_ = std::vector<std::uint32_t>(16, ~0u);
  };
  LoadedModel model(kNano);
  const std::vector<std::int32_t> prompt = {0, 5, 6};
  const std::vector<std::uint32_t> tables[] = {{0}, {1}};
  std::vector<SampledToken> sampled(2);
  Watching mask;
  mask.other = &sampled[1];
  const std::vector<SequenceStep> steps = {
      {.tokens = prompt, .block_table = tables[0], .sample = &kGreedy, .mask = &mask},
      {.tokens = prompt, .block_table = tables[1], .sample = &kGreedy}};
  EXPECT_TRUE(model.model().Step(steps, model.kv(), {}, sampled).ok());
  EXPECT_NE(mask.seen, -1);
  EXPECT_EQ(mask.seen, sampled[1].token);
  EXPECT_EQ(sampled[0].token, sampled[1].token);
}

bool IsNumericFault(const SampledToken& sampled) {
  return contract::ReasonOf(sampled.status) == contract::Reason::kNumericFault &&
         sampled.token == -1;
}

// Three sequences in both forms of which the middle one meets a NaN: it alone fails, the others
// keep their bits.
void ExpectFaultOfTheMiddleOne(const std::string& sound, const std::string& faulty,
                               const std::vector<std::vector<std::int32_t>>& prompts,
                               AttentionForm form) {
  const auto run = [&](const std::string& directory) {
    LoadedModel model(directory);
    std::vector<std::vector<std::uint32_t>> tables = {Blocks(0, 1), Blocks(1, 1), Blocks(2, 1)};
    std::vector<SequenceStep> steps;
    for (std::size_t i = 0; i < 3; ++i) {
      steps.push_back(
          {.tokens = prompts[i], .block_table = tables[i], .form = form, .sample = &kGreedy});
    }
    return model.Step(steps);
  };
  const std::vector<SampledToken> expected = run(sound);
  const std::vector<SampledToken> sampled = run(faulty);
  EXPECT_TRUE(expected[1].status.ok());
  EXPECT_TRUE(IsNumericFault(sampled[1])) << sampled[1].status;
  for (const std::size_t i : {0, 2}) {
    EXPECT_TRUE(sampled[i].status.ok()) << sampled[i].status;
    EXPECT_EQ(sampled[i].top, expected[i].top) << i;
  }
}

TEST(DeepSeekModel, NanInAnEmbeddingFailsOnlyTheSequencesThatUseIt) {
  CheckpointCopy copy(kNano);
  copy.Patch("model.embed_tokens.weight", 77 * 256 * 2 + 10, {0xc0, 0x7f});
  for (const AttentionForm form : {AttentionForm::kPrefill, AttentionForm::kAbsorbed}) {
    ExpectFaultOfTheMiddleOne(kNano, copy.path(), {{0, 5, 6}, {0, 77, 6, 8}, {0, 9, 5, 6}}, form);
  }
}

TEST(DeepSeekModel, NanInsideAPromptIsAFaultOfItsLogProbabilities) {
  CheckpointCopy copy(kNano);
  copy.Patch("model.embed_tokens.weight", 77 * 256 * 2 + 10, {0xc0, 0x7f});
  LoadedModel model(copy.path());
  const std::vector<std::int32_t> prompts[] = {{0, 5, 6, 7}, {0, 5, 77, 6}};
  const std::vector<std::uint32_t> tables[] = {{0}, {1}};
  std::vector<SequenceStep> steps;
  for (const std::size_t i : {0, 1}) {
    steps.push_back({.tokens = prompts[i],
                     .block_table = tables[i],
                     .followers = std::span(prompts[i]).subspan(1)});
  }
  const std::vector<SampledToken> sampled = model.Step(steps);
  EXPECT_TRUE(sampled[0].status.ok());
  EXPECT_EQ(sampled[0].followers.size(), 3u);
  EXPECT_TRUE(IsNumericFault(sampled[1]));
  EXPECT_THAT(sampled[1].status.ToString(), testing::HasSubstr("position 3"));
}

TEST(DeepSeekModel, InfinityInAnEmbeddingIsAFaultToo) {
  CheckpointCopy copy(kNano);
  copy.Patch("model.embed_tokens.weight", 77 * 256 * 2 + 10, {0x80, 0x7f});
  ExpectFaultOfTheMiddleOne(kNano, copy.path(), {{0, 5, 6}, {0, 77, 6, 8}, {0, 9, 5, 6}},
                            AttentionForm::kPrefill);
}

TEST(DeepSeekModel, NanInAnExpertFailsOnlyTheSequencesThatReachIt) {
  CheckpointCopy copy(kNano);
  copy.Patch("model.layers.3.mlp.experts.5.down_proj.weight", 1000, {0x7f});
  LoadedModel sound(kNano);
  LoadedModel faulty(copy.path());
  int faults = 0;
  int answers = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::vector<std::int32_t> prompt = RandomTokens(1, 512, 1000 + seed);
    const std::vector<std::uint32_t> table = {0};
    const SequenceStep step{.tokens = prompt, .block_table = table, .sample = &kGreedy};
    const SampledToken expected = sound.Step({&step, 1})[0];
    const SampledToken sampled = faulty.Step({&step, 1})[0];
    if (sampled.status.ok()) {
      ++answers;
      EXPECT_EQ(sampled.top, expected.top);
    } else {
      ++faults;
      EXPECT_TRUE(IsNumericFault(sampled));
    }
  }
  EXPECT_GT(faults, 0) << "no prompt reached the expert";
  EXPECT_GT(answers, 0) << "every prompt reached the expert";
}

class StepLimitsTest : public testing::Test {
 protected:
  absl::Status Try(const SequenceStep& step) {
    std::vector<SampledToken> sampled(1);
    return model_.model().Step({&step, 1}, model_.kv(), {}, sampled);
  }
  void ExpectRefused(const SequenceStep& step, const std::string& message) {
    const absl::Status status = Try(step);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(message));
  }

  LoadedModel model_{kNano, 4, {.tokens_max = 8, .sequences_max = 2}};
  const std::vector<std::int32_t> tokens_ = std::vector<std::int32_t>(9, 1);
  const std::vector<std::uint32_t> table_ = {0, 3};
};

TEST_F(StepLimitsTest, TokensMustFitTheStep) {
  EXPECT_TRUE(Try({.tokens = std::span(tokens_).first(8), .block_table = table_}).ok());
  ExpectRefused({.tokens = tokens_, .block_table = table_}, "more than 8 tokens");
}

TEST_F(StepLimitsTest, SequencesMustFitTheStep) {
  const SequenceStep step{.tokens = std::span(tokens_).first(1), .block_table = table_};
  const std::vector<SequenceStep> steps(3, step);
  std::vector<SampledToken> sampled(3);
  const absl::Status status = model_.model().Step(steps, model_.kv(), {}, sampled);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("3 sequences; the limit is 2"));
  EXPECT_FALSE(model_.model().Step(std::span(steps).first(2), model_.kv(), {}, sampled).ok());
}

TEST_F(StepLimitsTest, SequencesMustBeWellFormed) {
  const std::span<const std::int32_t> one = std::span(tokens_).first(1);
  ExpectRefused({.block_table = table_}, "no tokens");
  ExpectRefused({.tokens = one, .position = 4096, .block_table = table_}, "the context has 4096");
  ExpectRefused({.tokens = one, .position = 0xffffffffu, .block_table = table_},
                "the context has 4096");
  ExpectRefused({.tokens = one, .position = 128, .block_table = table_},
                "has 2 KV blocks; it needs 3");
  const std::vector<std::uint32_t> outside = {0, 4};
  ExpectRefused({.tokens = one, .position = 64, .block_table = outside}, "names KV block 4 of 4");
  ExpectRefused({.tokens = one, .block_table = table_, .followers = std::span(tokens_).first(2)},
                "1 tokens and 2 followers");
  EXPECT_TRUE(Try({.tokens = one, .position = 0, .block_table = outside}).ok())
      << "a block that is not needed yet may be anything";
  for (const std::int32_t token : {-1, 512}) {
    ExpectRefused({.tokens = {&token, 1}, .block_table = table_}, "the vocabulary has 512");
    ExpectRefused({.tokens = one, .block_table = table_, .followers = {&token, 1}},
                  "the vocabulary has 512");
    ExpectRefused({.tokens = one, .block_table = table_, .banned = {&token, 1}},
                  "the vocabulary has 512");
  }
}

TEST_F(StepLimitsTest, AnEmptyStepDoesNothing) {
  EXPECT_TRUE(model_.model().Step({}, model_.kv(), {}, {}).ok());
}

}  // namespace
}  // namespace baleen::worker
