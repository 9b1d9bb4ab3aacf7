#include "tests/text/grammar/grammar_test_util.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"
#include "text/crate/baleen_text.h"

namespace baleen::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kChanceTokens = 120;
constexpr std::size_t kReplyTokensMax = 4000;

Json ReadJson(const std::string& path) {
  std::ifstream file(path);
  return Json::parse(file);
}

// models/nano's tokenizer.json with the tool tokens added; its id is what follows the others.
std::string ExtendedTokenizer(TestVocabulary& tokens) {
  Json tokenizer = ReadJson("models/nano/tokenizer.json");
  auto id = static_cast<std::int32_t>(tokenizer["model"]["vocab"].size());
  for (const Json& added : tokenizer["added_tokens"]) {
    id = std::max(id, added["id"].get<std::int32_t>() + 1);
  }
  const auto add = [&](std::string_view content) {
    tokenizer["added_tokens"].push_back({{"id", id},
                                         {"content", content},
                                         {"single_word", false},
                                         {"lstrip", false},
                                         {"rstrip", false},
                                         {"normalized", true},
                                         {"special", false}});
    return id++;
  };
  tokens.tool_tokens.calls_begin = add(kToolCallsBegin);
  tokens.tool_tokens.calls_end = add(kToolCallsEnd);
  tokens.tool_tokens.call_begin = add(kToolCallBegin);
  tokens.tool_tokens.call_end = add(kToolCallEnd);
  tokens.tool_tokens.separator = add(kToolSeparator);
  return tokenizer.dump();
}

void ReadBytes(const baleen_text_tokenizer& tokenizer, TestVocabulary& tokens) {
  baleen_text_vocabulary vocabulary;
  baleen_text_tokenizer_vocabulary(&tokenizer, &vocabulary);
  tokens.byte_tokens.assign(256, -1);
  for (std::uint32_t id = 0; id < vocabulary.id_end; ++id) {
    const std::uint32_t begin = vocabulary.offsets[id];
    tokens.bytes.emplace_back(vocabulary.bytes + begin, vocabulary.offsets[id + 1] - begin);
    tokens.control.push_back((vocabulary.flags[id] & BALEEN_TEXT_TOKEN_CONTROL) != 0);
    if (!tokens.control.back() && tokens.bytes.back().size() == 1) {
      tokens.byte_tokens[static_cast<unsigned char>(tokens.bytes.back()[0])] =
          static_cast<std::int32_t>(id);
    }
  }
}

TestVocabulary Make() {
  TestVocabulary tokens;
  const std::string json = ExtendedTokenizer(tokens);
  tokens.eos = ReadJson("models/nano/config.json")["eos_token_id"].get<std::int32_t>();
  const baleen_text_limits limits = {.tokenizer_json_bytes_max = json.size(),
                                     .config_json_bytes_max = 0,
                                     .text_bytes_max = 0,
                                     .messages_max = 0};
  baleen_text_tokenizer* tokenizer = nullptr;
  baleen_text_error error;
  EXPECT_EQ(baleen_text_tokenizer_load(&limits, {json.data(), json.size()}, {}, &tokenizer, &error),
            0);
  ReadBytes(*tokenizer, tokens);
  const auto ids = static_cast<std::uint32_t>(tokens.bytes.size());
  auto vocabulary =
      Vocabulary::Create(*tokenizer, {.size = ids + kPaddingRows, .eos_token_ids = {tokens.eos}});
  EXPECT_TRUE(vocabulary.ok()) << vocabulary.status();
  tokens.vocabulary = *std::move(vocabulary);
  tokens.bytes.resize(ids + kPaddingRows);
  tokens.control.resize(ids + kPaddingRows);
  baleen_text_tokenizer_free(tokenizer);
  return tokens;
}

// How much a token leads out of what is open; larger is better.
int Closes(const std::string& bytes) {
  static constexpr std::string_view kOrder = "-tfn10,:[{]}\"";
  return bytes.size() == 1 ? static_cast<int>(kOrder.find(bytes[0]) + 1) : 0;
}

std::int32_t Choose(const std::vector<std::int32_t>& allowed, std::size_t step,
                    std::mt19937_64& random) {
  const std::vector<std::string>& bytes = Tokens().bytes;
  const bool may_end = std::binary_search(allowed.begin(), allowed.end(), Tokens().eos);
  if (may_end && (step > kChanceTokens || random() % 4 == 0)) return Tokens().eos;
  if (step > kChanceTokens && random() % 8 != 0) {
    return *std::max_element(allowed.begin(), allowed.end(), [&](auto a, auto b) {
      return Closes(bytes[static_cast<std::size_t>(a)]) <
             Closes(bytes[static_cast<std::size_t>(b)]);
    });
  }
  // Structure as often as words: else every reply is one long string.
  std::vector<std::int32_t> structure;
  std::copy_if(allowed.begin(), allowed.end(), std::back_inserter(structure),
               [&](auto id) { return Closes(bytes[static_cast<std::size_t>(id)]) > 0; });
  const auto& from = !structure.empty() && random() % 2 == 0 ? structure : allowed;
  return from[random() % from.size()];
}

}  // namespace

const TestVocabulary& Tokens() {
  static const auto* const tokens = new TestVocabulary(Make());
  return *tokens;
}

std::shared_ptr<const Grammar> MustCompile(GrammarKind kind, std::string_view source) {
  auto grammar = Grammar::Compile(Tokens().vocabulary, {.kind = kind, .text = std::string(source)});
  EXPECT_TRUE(grammar.ok()) << grammar.status() << " of " << source.substr(0, 200);
  return grammar.ok() ? *grammar : nullptr;
}

std::unique_ptr<Matcher> MustMatch(const std::shared_ptr<const Grammar>& grammar) {
  auto matcher = Matcher::Create(grammar);
  EXPECT_TRUE(matcher.ok()) << matcher.status();
  return *std::move(matcher);
}

std::vector<std::int32_t> Allowed(Matcher& matcher) {
  std::vector<std::uint32_t> mask(matcher.vocabulary().mask_words());
  const absl::Status status = matcher.Mask(mask);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<std::int32_t> allowed;
  for (std::size_t id = 0; id < mask.size() * 32; ++id) {
    if ((mask[id / 32] >> (id % 32) & 1) != 0) allowed.push_back(static_cast<std::int32_t>(id));
  }
  return status.ok() ? allowed : std::vector<std::int32_t>();
}

bool IsAllowed(Matcher& matcher, std::int32_t token) {
  const std::vector<std::int32_t> allowed = Allowed(matcher);
  return std::binary_search(allowed.begin(), allowed.end(), token);
}

bool Accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  return AcceptsTokens(grammar, Bytes(text));
}

bool AcceptsTokens(const std::shared_ptr<const Grammar>& grammar,
                   const std::vector<std::int32_t>& tokens) {
  const std::unique_ptr<Matcher> matcher = MustMatch(grammar);
  for (const std::int32_t token : tokens) {
    const bool allowed = IsAllowed(*matcher, token);
    const bool consumed = matcher->Consume(token).ok();
    EXPECT_EQ(allowed, consumed) << "mask and parser disagree on token " << token;
    if (!consumed) return false;
  }
  return IsAllowed(*matcher, Tokens().eos);
}

std::vector<std::int32_t> Bytes(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char c : text) {
    tokens.push_back(Tokens().byte_tokens[static_cast<unsigned char>(c)]);
    EXPECT_GE(tokens.back(), 0) << "no token for byte " << static_cast<int>(c);
  }
  return tokens;
}

std::string RandomReply(const std::shared_ptr<const Grammar>& grammar, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::unique_ptr<Matcher> matcher = MustMatch(grammar);
  std::string reply;
  for (std::size_t step = 0; step < kReplyTokensMax; ++step) {
    const std::vector<std::int32_t> allowed = Allowed(*matcher);
    if (allowed.empty()) break;
    const std::int32_t token = Choose(allowed, step, random);
    EXPECT_TRUE(matcher->Consume(token).ok()) << "an allowed token is consumed";
    if (token == Tokens().eos) return reply;
    EXPECT_FALSE(Tokens().control[static_cast<std::size_t>(token)]);
    reply += Tokens().bytes[static_cast<std::size_t>(token)];
  }
  ADD_FAILURE() << "no end after " << kReplyTokensMax << " tokens: " << reply.substr(0, 500);
  return reply;
}

}  // namespace baleen::text
