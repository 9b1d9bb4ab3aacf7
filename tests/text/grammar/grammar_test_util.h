// A small vocabulary with DeepSeek's tool tokens, replies by chance, and an independent checker of
// JSON Schema, for the tests of text/grammar.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "nlohmann/json.hpp"
#include "text/grammar/grammar.h"
#include "text/grammar/tool_grammar.h"

namespace baleen::text {

// That of models/nano, with padding rows behind it.
struct TestVocabulary {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::vector<std::string> bytes;  // of each token; empty for padding
  std::vector<bool> control;
  std::vector<std::int32_t> byte_tokens;  // the token of each single byte
  std::int32_t eos = -1;
  ToolTokens tool_tokens;
};
const TestVocabulary& Tokens();

inline constexpr std::uint32_t kPaddingRows = 40;

std::shared_ptr<const Grammar> MustCompile(GrammarKind kind, std::string_view source);
std::unique_ptr<Matcher> MustMatch(const std::shared_ptr<const Grammar>& grammar);

// Ids that may come next; fails the test on an error.
std::vector<std::int32_t> Allowed(Matcher& matcher);
bool IsAllowed(Matcher& matcher, std::int32_t token);

// Whether the grammar takes `text`, byte by byte, and may end after it.
bool Accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text);
// The same of tokens, without the one that ends the reply.
bool AcceptsTokens(const std::shared_ptr<const Grammar>& grammar,
                   const std::vector<std::int32_t>& tokens);
// Tokens of single bytes.
std::vector<std::int32_t> Bytes(std::string_view text);

// The text of random tokens that the grammar allows, up to its end: at most some hundred of them by
// chance, then those that lead out of strings, arrays and objects.
std::string RandomReply(const std::shared_ptr<const Grammar>& grammar, std::uint64_t seed);

// What is wrong with `value` by `schema`; empty: nothing. Knows the keywords that
// docs/structured-output.md lists, and nothing of llguidance.
std::string WhatIsWrong(const nlohmann::ordered_json& value, const nlohmann::ordered_json& schema);

}  // namespace baleen::text
