// What a reply that nobody reads may hold.
#include "router/server/generation/choice_reply.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "router/server/chunk.h"
#include "tests/router/text/text_test_util.h"

namespace baleen::router {
namespace {

// The limit was on tokens only, and their text was left out of the sum: tokens of a kilobyte each
// made a chunk that no client takes.
TEST(ChoiceReply, TokensWithLongTextsAreFullBeforeAMessageIs) {
  auto tokenizer = nlohmann::json::parse(ReadFile("models/nano/tokenizer.json"));
  tokenizer["added_tokens"].push_back({{"id", 512},
                                       {"content", std::string(1000, 'a')},
                                       {"single_word", false},
                                       {"lstrip", false},
                                       {"rstrip", false},
                                       {"normalized", false},
                                       {"special", false}});
  const ModelDir directory;
  directory.Write("tokenizer.json", tokenizer.dump());
  const ModelText model{.name = "long", .tokenizer = MustLoad(directory.path())};
  ChoiceReply reply({.model = &model, .with_logprobs = true});
  std::size_t tokens = 0;
  for (; !reply.full() && tokens < kPendingTokensMax; ++tokens) {
    ReplyToken token{.id = 512, .logprobs = TokenLogprobs{.sampled = -1.5f}};
    for (std::uint32_t i = 0; i < contract::kLogprobsMax; ++i) {
      token.logprobs->top.emplace_back(1 << 20, -2.5f);
    }
    reply.Add(std::move(token));
  }
  EXPECT_TRUE(reply.full());
  EXPECT_EQ(tokens, (kPendingTextBytesMax + 1999) / 2000) << "a text, and one with its logprob";
  ReplyPart part{.prompt_token_ids = TokenIds(contract::kContextTokensMax, 1 << 20)};
  reply.Take(part);
  EXPECT_FALSE(reply.full());
  EXPECT_LT(ToChatChunk("id", model, part).ByteSizeLong(), contract::kMessageBytesMax);
  EXPECT_LT(ToGenerateChunk("id", model, part).ByteSizeLong(), contract::kMessageBytesMax);
}

}  // namespace
}  // namespace baleen::router
