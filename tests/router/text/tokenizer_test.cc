// Tokenizer against what Hugging Face's Python package makes of the same texts.
#include "router/text/tokenizer.h"

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/router/text/text_strings.h"
#include "tests/router/text/text_test_util.h"

namespace baleen::router {
namespace {

using Ids = std::vector<std::int32_t>;

Ids MustEncode(const Tokenizer& tokenizer, std::string_view text, ControlText control) {
  auto ids = tokenizer.Encode(text, control);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

struct Family {
  const char* directory;
  const char* golden;
};

class TokenizerGoldenTest : public testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    tokenizer_ = MustLoad(GetParam().directory);
    ASSERT_NE(tokenizer_, nullptr);
    encode_ = ReadGolden(GetParam().golden, "encode");
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
  nlohmann::json encode_;
};

TEST_P(TokenizerGoldenTest, EncodesAsHuggingFace) {
  ASSERT_GT(encode_.size(), 90u);
  for (const auto& row : encode_) {
    const std::string text = row["text"];
    EXPECT_EQ(MustEncode(*tokenizer_, text, ControlText::kAsTokens), row["ids"].get<Ids>()) << text;
    EXPECT_EQ(MustEncode(*tokenizer_, text, ControlText::kAsText), row["ids_as_text"].get<Ids>())
        << text;
  }
}

TEST_P(TokenizerGoldenTest, DecodesAsHuggingFace) {
  for (const auto& row : encode_) {
    EXPECT_EQ(tokenizer_->Decode(row["ids"].get<Ids>()), row["decoded"].get<std::string>());
  }
}

TEST_P(TokenizerGoldenTest, NoTextBecomesAControlToken) {
  for (const auto& row : encode_) {
    for (const std::int32_t id :
         MustEncode(*tokenizer_, row["text"].get<std::string>(), ControlText::kAsText)) {
      EXPECT_FALSE(tokenizer_->table().At(id).control) << row["text"];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGoldenTest,
                         testing::Values(Family{kByteLevelDir, "byte_level.json"},
                                         Family{kMetaspaceDir, "metaspace.json"}),
                         [](const auto& info) {
                           return info.index == 0 ? "ByteLevel" : "Metaspace";
                         });

// Random ids, mostly no UTF-8, piece by piece: the text of Hugging Face for all of them at once.
TEST(TokenizerTest, StreamsTheTextThatHuggingFaceDecodesAtOnce) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  for (const auto& row : ReadGolden("byte_level.json", "decode")) {
    for (const bool skip_special : {true, false}) {
      Detokenizer detokenizer(&tokenizer->table(), skip_special);
      std::string text;
      for (const std::int32_t id : row["ids"].get<Ids>()) {
        std::string delta;
        detokenizer.Push(id, &delta);
        EXPECT_TRUE(IsValidUtf8(delta));
        text += delta;
      }
      detokenizer.Finish(&text);
      EXPECT_EQ(text, row[skip_special ? "decoded" : "decoded_with_special"].get<std::string>());
    }
  }
}

// Random texts survive the way there and back, token by token.
TEST(TokenizerTest, TextsComeBackAsTheyWere) {
  constexpr unsigned kSeed = 3;
  std::mt19937 random(kSeed);
  const auto tokenizer = MustLoad(kByteLevelDir);
  for (int round = 0; round < 300; ++round) {
    std::string bytes, text;
    for (std::size_t i = random() % 60; i > 0; --i) bytes += static_cast<char>(random() % 256);
    Utf8Assembler assembler;
    assembler.Append(bytes, &text);
    assembler.Finish(&text);
    const Ids ids = MustEncode(*tokenizer, text, ControlText::kAsText);
    EXPECT_EQ(tokenizer->Decode(ids), text) << "seed " << kSeed << " round " << round;
  }
}

TEST(TokenizerTest, KnowsTheTokensThatMatter) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  EXPECT_EQ(tokenizer->table().id_end(), 512);
  EXPECT_EQ(tokenizer->bos_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_EQ(tokenizer->reasoning_open_id(), 510);
  EXPECT_EQ(tokenizer->reasoning_close_id(), 511);
  EXPECT_EQ(tokenizer->TokenId("<｜User｜>"), 508);
  EXPECT_EQ(tokenizer->TokenId("no such token"), -1);
  EXPECT_TRUE(tokenizer->table().At(1).special);
  // In the file, <think> is not special: it is part of the text unless a ReplyStream takes it out.
  EXPECT_FALSE(tokenizer->table().At(510).special);
  EXPECT_TRUE(tokenizer->table().At(510).control);

  const auto other = MustLoad(kMetaspaceDir);
  EXPECT_EQ(other->reasoning_open_id(), -1);
  EXPECT_TRUE(other->table().strips_leading_space());
}

// EncodePrompt is for Generate: special tokens recognised, bos where the model's prompts have one.
TEST(TokenizerTest, PromptsBeginAsTheModelsOwnDo) {
  EXPECT_EQ(*MustLoad(kByteLevelDir)->EncodePrompt("<｜User｜>"), Ids({508}));
  const auto metaspace = MustLoad(kMetaspaceDir);
  const auto ids = metaspace->EncodePrompt("abc");
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->front(), metaspace->bos_id());
  EXPECT_EQ(Ids(ids->begin() + 1, ids->end()),
            MustEncode(*metaspace, "abc", ControlText::kAsTokens));
  EXPECT_EQ(metaspace->EncodePrompt("").status().message(), "text is empty");
}

TEST(TokenizerTest, RefusesWhatIsTooLong) {
  const auto tokenizer = MustLoad(kByteLevelDir, {.text_bytes_max = 1000});
  EXPECT_TRUE(tokenizer->Encode(std::string(1000, 'a'), ControlText::kAsText).ok());
  const auto too_long = tokenizer->Encode(std::string(1001, 'a'), ControlText::kAsText);
  EXPECT_EQ(too_long.status(), absl::InvalidArgumentError("text is 1001 bytes, limit 1000"));
}

TEST(TokenizerTest, RefusesBrokenUtf8) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  for (const char* text : {"abc\xFF", "abc\xC3", "abc\xED\xA0\x80"}) {
    EXPECT_EQ(tokenizer->Encode(text, ControlText::kAsText).status(),
              absl::InvalidArgumentError("text is not valid UTF-8 at byte 3"));
  }
}

// Runs of white space are what the regular expressions are slowest at: at the limit, the text must
// still be split where it should be.
TEST(TokenizerTest, RunsOfWhiteSpaceUpToTheLimitAreExact) {
  constexpr std::size_t kRunMax = 100'000;
  const auto tokenizer = MustLoad(kByteLevelDir);
  for (const std::string unit : {" ", "\t", "\u3000"}) {
    std::string run;
    for (std::size_t i = 0; i < kRunMax; ++i) run += unit;
    const Ids ids = MustEncode(*tokenizer, "a" + run + "b", ControlText::kAsText);
    EXPECT_EQ(tokenizer->Decode(ids), "a" + run + "b");
    // All of the run but the last character is one piece for the merges; " b" is the next.
    Ids expected = MustEncode(*tokenizer, "a" + run.substr(unit.size()), ControlText::kAsText);
    const Ids last = MustEncode(*tokenizer, unit + "b", ControlText::kAsText);
    expected.insert(expected.end(), last.begin(), last.end());
    EXPECT_EQ(ids, expected);
    EXPECT_EQ(tokenizer->Encode(run + unit + "b", ControlText::kAsText).status(),
              absl::InvalidArgumentError(
                  "text has 100001 white space characters in a row, limit 100000"));
  }
}

TEST(TokenizerTest, RefusesATextThatLeavesNoSentinel) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  std::string all_but_one, all;
  for (int i = 0; i < 32; ++i) {
    all_but_one = all;
    all += std::string("\xEF\xB7") + static_cast<char>(0x90 + i);
  }
  const Ids ids = MustEncode(*tokenizer, all_but_one + "<think>", ControlText::kAsText);
  EXPECT_EQ(tokenizer->Decode(ids), all_but_one + "<think>");
  EXPECT_TRUE(tokenizer->Encode(all, ControlText::kAsTokens).ok());
  EXPECT_TRUE(tokenizer->Encode(all, ControlText::kAsText).ok()) << "needs none";
  EXPECT_EQ(MustLoad(kMetaspaceDir)->Encode(all, ControlText::kAsText).status(),
            absl::InvalidArgumentError("text has all 32 noncharacters U+FDD0 to U+FDEF, limit 31"));
}

// Of a tokenizer that can not spell bytes, the unknown token stands for what it does not know; that
// is not a control token out of the text.
TEST(TokenizerTest, UnknownCharactersAreTheUnknownToken) {
  auto json = nlohmann::json::parse(ReadFile(std::string(kMetaspaceDir) + "/tokenizer.json"));
  json["model"]["byte_fallback"] = false;
  const ModelDir dir;
  dir.Write("tokenizer.json", json.dump());
  const auto tokenizer = MustLoad(dir.path());
  const std::int32_t unknown = tokenizer->TokenId("<unk>");
  EXPECT_EQ(MustEncode(*tokenizer, "a☃", ControlText::kAsText).back(), unknown);
  EXPECT_NE(MustEncode(*tokenizer, "a<unk>", ControlText::kAsText).back(), unknown);
}

TEST(TokenizerTest, ChecksIds) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  EXPECT_TRUE(tokenizer->CheckIds(Ids({0, 5, 511})).ok());
  EXPECT_EQ(
      tokenizer->CheckIds(Ids({0, 5, 512})),
      absl::InvalidArgumentError("token_ids[2] is 512, no token of the vocabulary (0 to 511)"));
  EXPECT_EQ(
      tokenizer->CheckIds(Ids({-1})),
      absl::InvalidArgumentError("token_ids[0] is -1, no token of the vocabulary (0 to 511)"));
  EXPECT_EQ(tokenizer->CheckIds({}), absl::InvalidArgumentError("token_ids is empty"));
}

TEST(TokenizerTest, ThreadsShareOne) {
  const auto tokenizer = MustLoad(kByteLevelDir);
  const std::string text = "ones: 7+9+0=16, carry 1\nWhat is <think> 你好?";
  const Ids expected = MustEncode(*tokenizer, text, ControlText::kAsText);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        EXPECT_EQ(MustEncode(*tokenizer, text, ControlText::kAsText), expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// The tokenizer of `dir`, made such that only the general machinery encodes with it: its normaliser
// changes nothing, and is not one that the fast way knows.
std::shared_ptr<const Tokenizer> MustLoadGeneral(const std::string& dir) {
  auto json = nlohmann::json::parse(ReadFile(dir + "/tokenizer.json"));
  json["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "\uFDEF\uFDEF"}}}, {"content", "\uFDEF\uFDEF"}};
  const ModelDir model_dir;
  model_dir.Write("tokenizer.json", json.dump());
  return MustLoad(model_dir.path());
}

TEST(TextStringsTest, TheFrozenTokenizerEncodesAsPyPI) {
  const TextStrings made;
  const auto tokenizer = MustLoad(kByteLevelDir);
  EXPECT_EQ(made.DigestsOf([&](const std::string& text) {
    return MustEncode(*tokenizer, text, ControlText::kAsTokens);
  }),
            made.digests("byte_level"));
}

// Two implementations, which know nothing of each other: control tokens as text as well, which PyPI
// has no call for.
TEST(TextStringsTest, TheFastWayAndTheGeneralOneAgree) {
  const TextStrings made;
  for (const char* dir : {kByteLevelDir, kNanoDir}) {
    const auto fast = MustLoad(dir);
    const auto general = MustLoadGeneral(dir);
    for (std::size_t i = 0; i < made.strings().size(); i += 20) {
      for (const ControlText control : {ControlText::kAsText, ControlText::kAsTokens}) {
        const std::string& text = made.strings()[i];
        ASSERT_EQ(MustEncode(*fast, text, control), MustEncode(*general, text, control)) << text;
      }
    }
  }
}

// Random concatenations, long enough for pieces, with a cache that is asked again and again.
TEST(TextStringsTest, PiecesThreadsAndTheCacheChangeNoId) {
  const TextStrings made;
  const auto tokenizer = MustLoad(kByteLevelDir);
  std::mt19937 random(8);
  std::size_t calls = 0;
  const ParallelFor parallel = [&](std::size_t count,
                                   const std::function<void(std::size_t)>& body) {
    calls += count;
    std::thread other([&] {
      for (std::size_t i = 0; i < count; i += 2) body(i);
    });
    for (std::size_t i = 1; i < count; i += 2) body(i);
    other.join();
  };
  PromptCache cache(1 << 20);
  for (int round = 0; round < 20; ++round) {
    std::string text;
    while (text.size() < 60'000) text += made.strings()[random() % TextStrings::kCount];
    for (const ControlText control : {ControlText::kAsText, ControlText::kAsTokens}) {
      const Ids plain = MustEncode(*tokenizer, text, control);
      for (int again = 0; again < 2; ++again) {
        const auto helped =
            tokenizer->Encode(text, control, {.parallel = &parallel, .cache = &cache});
        ASSERT_TRUE(helped.ok()) << helped.status();
        ASSERT_EQ(*helped, plain) << "round " << round;
      }
    }
  }
  EXPECT_GT(calls, 200u);
  EXPECT_GT(cache.counts().hits, 20u);
}

TEST(TextStringsTest, DeepSeeksTokenizerEncodesAsPyPI) {
  if (!std::filesystem::exists(kDeepSeekDir)) {
    GTEST_SKIP() << "no " << kDeepSeekDir << ": `make oracle` fetches it";
  }
  const TextStrings made;
  const auto tokenizer = MustLoad(kDeepSeekDir);
  EXPECT_EQ(made.DigestsOf([&](const std::string& text) {
    return MustEncode(*tokenizer, text, ControlText::kAsTokens);
  }),
            made.digests("deepseek_v3"));
}

}  // namespace
}  // namespace baleen::router
