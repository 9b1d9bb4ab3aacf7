// Detokenizer and TokenTable, on tables made here.
#include "router/text/detokenizer.h"

#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace baleen::router {
namespace {

constexpr std::int32_t kSpecialId = 256;
constexpr std::int32_t kHoleId = 257;
constexpr std::int32_t kFirstWordId = 258;

// One token for each byte, a special one, an id without a token, and a few words, some of which end
// inside a character.
TokenTable MakeTable() {
  TokenTable table;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    table.Add({.bytes = {&c, 1}, .exists = true});
  }
  table.Add({.bytes = "<end>", .exists = true, .special = true, .control = true});
  table.Add({});
  for (const char* word :
       {"hello", " world", "\xE4\xBD", "\xA0\xE5\xA5\xBD", "\xF0\x9F", "\x98\x80 \xF0", ""}) {
    table.Add({.bytes = word, .exists = true});
  }
  return table;
}

TEST(TokenTableTest, KnowsItsTokens) {
  const TokenTable table = MakeTable();
  EXPECT_EQ(table.id_end(), kFirstWordId + 7);
  EXPECT_EQ(table.At('a').bytes, "a");
  EXPECT_TRUE(table.At('a').exists);
  EXPECT_FALSE(table.At('a').special);
  EXPECT_EQ(table.At(kSpecialId).bytes, "<end>");
  EXPECT_TRUE(table.At(kSpecialId).special);
  EXPECT_TRUE(table.At(kSpecialId).control);
  EXPECT_FALSE(table.At(kHoleId).exists);
  for (const std::int32_t id : {-1, table.id_end(), std::numeric_limits<std::int32_t>::min(),
                                std::numeric_limits<std::int32_t>::max()}) {
    EXPECT_FALSE(table.At(id).exists) << id;
    EXPECT_EQ(table.At(id).bytes, "") << id;
  }
}

TEST(DetokenizerTest, KeepsBackAnUnfinishedCharacter) {
  const TokenTable table = MakeTable();
  Detokenizer detokenizer(&table);
  std::string text;
  detokenizer.Push(kFirstWordId, &text);
  EXPECT_EQ(text, "hello");
  detokenizer.Push(kFirstWordId + 2, &text);  // the first two bytes of U+4F60
  EXPECT_EQ(text, "hello");
  EXPECT_EQ(detokenizer.pending_bytes(), 2u);
  detokenizer.Push(kFirstWordId + 3, &text);
  EXPECT_EQ(text, "hello\xE4\xBD\xA0\xE5\xA5\xBD");
  EXPECT_EQ(detokenizer.pending_bytes(), 0u);
}

TEST(DetokenizerTest, ATruncatedEndBecomesOneReplacementCharacter) {
  const TokenTable table = MakeTable();
  Detokenizer detokenizer(&table);
  std::string text;
  detokenizer.Push(kFirstWordId + 4, &text);
  detokenizer.Finish(&text);
  detokenizer.Finish(&text);
  EXPECT_EQ(text, "\xEF\xBF\xBD");
}

TEST(DetokenizerTest, SpecialTokensAreSkippedOnRequestWithoutCuttingACharacter) {
  const TokenTable table = MakeTable();
  const std::vector<std::int32_t> ids = {kFirstWordId + 2, kSpecialId, kFirstWordId + 3};
  EXPECT_EQ(Detokenize(table, ids), "\xE4\xBD\xA0\xE5\xA5\xBD");
  EXPECT_EQ(Detokenize(table, ids, /*skip_special=*/false),
            "\xEF\xBF\xBD<end>\xEF\xBF\xBD\xE5\xA5\xBD");
}

TEST(DetokenizerTest, IdsWithoutATokenAddNothing) {
  const TokenTable table = MakeTable();
  const std::vector<std::int32_t> ids = {'a', kHoleId, -5, 1 << 30, 'b'};
  EXPECT_EQ(Detokenize(table, ids), "ab");
}

TEST(DetokenizerTest, StripsOneLeadingSpaceOfTheWholeTextOnly) {
  TokenTable table = MakeTable();
  table.set_strips_leading_space(true);
  EXPECT_EQ(Detokenize(table, std::vector<std::int32_t>{kFirstWordId + 1, kFirstWordId + 1}),
            "world world");
  EXPECT_EQ(Detokenize(table, std::vector<std::int32_t>{' ', ' ', 'a'}), " a");
  // Neither a special token nor an empty one is the beginning of the text.
  EXPECT_EQ(Detokenize(table, std::vector<std::int32_t>{kSpecialId, kFirstWordId + 6, ' ', 'a'}),
            "a");
  EXPECT_EQ(Detokenize(table, std::vector<std::int32_t>{'a', ' ', 'b'}), "a b");
}

// Whatever the ids: the deltas are well-formed, and together they are the text of all bytes at
// once. Of a token, no more is kept than one unfinished character, so work is in proportion to the
// tokens.
TEST(DetokenizerTest, DeltasAddUpToTheWholeText) {
  constexpr unsigned kSeed = 2;
  std::mt19937 random(kSeed);
  const TokenTable table = MakeTable();
  for (int round = 0; round < 3000; ++round) {
    std::string bytes, text;
    Detokenizer detokenizer(&table);
    for (std::size_t i = random() % 50; i > 0; --i) {
      const bool words = random() % 2 == 0;
      const auto id =
          static_cast<std::int32_t>(words ? kFirstWordId + random() % 7 : random() % 260);
      if (!table.At(id).special) bytes.append(table.At(id).bytes);
      std::string delta;
      detokenizer.Push(id, &delta);
      EXPECT_TRUE(IsValidUtf8(delta)) << "seed " << kSeed << " round " << round;
      EXPECT_LE(detokenizer.pending_bytes(), Utf8Assembler::kPendingBytesMax);
      text += delta;
    }
    detokenizer.Finish(&text);
    Utf8Assembler at_once;
    std::string expected;
    at_once.Append(bytes, &expected);
    at_once.Finish(&expected);
    EXPECT_EQ(text, expected) << "seed " << kSeed << " round " << round;
  }
}

// Every token costs what its own bytes do: the text is the same, and nothing is kept that grows. A
// detokenizer that decoded the reply again for each token would take minutes here.
TEST(DetokenizerTest, AHundredThousandTokensAreOnePass) {
  const TokenTable table = MakeTable();
  constexpr int kTokens = 100'000;
  std::mt19937 random(3);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < kTokens; ++i) {
    ids.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(table.id_end())));
  }
  Detokenizer detokenizer(&table);
  std::string text;
  for (const std::int32_t id : ids) {
    detokenizer.Push(id, &text);
    ASSERT_LE(detokenizer.pending_bytes(), Utf8Assembler::kPendingBytesMax);
  }
  detokenizer.Finish(&text);
  EXPECT_EQ(text, Detokenize(table, ids));
  EXPECT_TRUE(IsValidUtf8(text));
}

}  // namespace
}  // namespace baleen::router
