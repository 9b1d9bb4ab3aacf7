// What a reply that nobody reads may hold.
#include "router/server/request/reply.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/router/text/text_test_util.h"

namespace baleen::router {
namespace {

// The limit was on tokens only, and their text was left out of the sum: tokens of a kilobyte each
// made a chunk that no client takes.
TEST(ReplyBuilder, TokensWithLongTextsAreFullBeforeAMessageIs) {
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
  for (const bool chat : {false, true}) {
    ReplyBuilder reply({.chat = chat,
                        .model = &model,
                        .sampling = {.logprobs = contract::kLogprobsMax},
                        .prompt_token_ids = TokenIds(contract::kContextTokensMax, 1 << 20)});
    std::size_t tokens = 0;
    for (; !reply.full() && tokens < kPendingTokensMax; ++tokens) {
      ReplyToken token{.id = 512, .logprobs = TokenLogprobs{.sampled = -1.5f}};
      for (std::uint32_t i = 0; i < contract::kLogprobsMax; ++i) {
        token.logprobs->top.emplace_back(1 << 20, -2.5f);
      }
      reply.Add(std::move(token));
    }
    EXPECT_TRUE(reply.full());
    EXPECT_EQ(tokens, (kPendingTextBytesMax + 999) / 1000);
    EXPECT_LT(reply.Take().size(), contract::kMessageBytesMax);
    EXPECT_FALSE(reply.full());
  }
}

}  // namespace
}  // namespace baleen::router
