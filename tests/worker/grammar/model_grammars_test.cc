// Masks of the quick-start model's vocabulary, through all layers.
#include "worker/grammar/model_grammars.h"

#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "observability/base/clock.h"
#include "worker/grammar/grammar_pool.h"

namespace baleen::worker {
namespace {

constexpr char kSchema[] =
    R"({"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]})";

TEST(ModelGrammarsTest, FollowAReply) {
  ModelGrammars grammars({.model_directory = "models/nano", .vocabulary = {.size = 512}});
  ASSERT_EQ(grammars.mask_words(), 16u);
  const auto rules = grammars.Compile({text::GrammarKind::kJsonSchema, kSchema});
  ASSERT_TRUE(rules.ok()) << rules.status();
  std::vector<std::uint32_t> mask(16);
  for (int step = 0; step < 8; ++step) {
    ASSERT_TRUE((*rules)->Mask(mask).ok());
    std::int32_t token = 0;
    while ((mask[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) == 0) ++token;
    ASSERT_TRUE((*rules)->Consume(token).ok());
  }
}

TEST(ModelGrammarsTest, RefuseWithoutATokenizer) {
  ModelGrammars grammars({.model_directory = "tests/golden", .vocabulary = {.size = 512}});
  const auto rules = grammars.Compile({text::GrammarKind::kJsonSchema, kSchema});
  EXPECT_TRUE(absl::IsFailedPrecondition(rules.status()));
  EXPECT_THAT(std::string(rules.status().message()), testing::HasSubstr("tokenizer.json"));
}

TEST(ModelGrammarsTest, RefuseWhatIsNoGrammar) {
  ModelGrammars grammars({.model_directory = "models/nano", .vocabulary = {.size = 512}});
  EXPECT_TRUE(absl::IsInvalidArgument(grammars.Compile({text::GrammarKind::kRegex, "("}).status()));
}

// Two ranks that saw the same tokens have the same masks, whoever computed them.
TEST(ModelGrammarsTest, AgreeAcrossRanks) {
  ModelGrammars grammars({.model_directory = "models/nano", .vocabulary = {.size = 512}});
  GrammarPool prefill({.mask_threads = 0}, SystemClock(), grammars);
  GrammarPool decode({.mask_threads = 2}, SystemClock(), grammars);
  const text::GrammarSource source = {text::GrammarKind::kJsonSchema, kSchema};
  const auto left = prefill.Begin(source, std::nullopt);
  const auto right = decode.Begin(source, std::nullopt);
  for (const auto* grammar : {left.get(), right.get()}) {
    while (!*grammar->Prepared()) std::this_thread::yield();
  }
  for (int step = 0; step < 10; ++step) {
    const auto one = left->mask()->Await();
    const auto two = right->mask()->Await();
    ASSERT_TRUE(one.ok() && two.ok());
    ASSERT_THAT(*one, testing::ElementsAreArray(*two));
    std::int32_t token = 511;
    while (((*one)[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1) == 0) --token;
    left->Accept(token);
    right->Accept(token);
  }
}

}  // namespace
}  // namespace baleen::worker
