// Fuzz target: any JSON schema, regular expression or Lark grammar. It is refused as the request's
// fault, or its masks and its parser agree on every token.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "text/grammar/grammar.h"

namespace {

using baleen::text::Grammar;
using baleen::text::GrammarKind;
using baleen::text::Matcher;
using baleen::text::Vocabulary;

constexpr int kTokens = 16;

std::shared_ptr<const Vocabulary> GetVocabulary() {
  static const std::shared_ptr<const Vocabulary> vocabulary = [] {
    auto loaded = Vocabulary::Load("models/nano", {.size = 520});
    BALEEN_CHECK(loaded.ok(), "run from the root of the repository");
    return *loaded;
  }();
  return vocabulary;
}

// The allowed token that `choice` points at.
std::int32_t Choose(const std::vector<std::uint32_t>& mask, std::size_t choice) {
  std::vector<std::int32_t> allowed;
  for (std::size_t id = 0; id < mask.size() * 32; ++id) {
    if ((mask[id / 32] >> (id % 32) & 1) != 0) allowed.push_back(static_cast<std::int32_t>(id));
  }
  BALEEN_CHECK(!allowed.empty(), "something may always follow");
  BALEEN_CHECK(allowed.back() < 512, "padding is never allowed");
  return allowed[choice % allowed.size()];
}

}  // namespace

// The first byte says which kind, and, with the others, which tokens follow.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto kind = static_cast<GrammarKind>(data[0] % 3);
  const auto grammar = Grammar::Compile(
      GetVocabulary(), {kind, std::string(data + 1, data + size)},
      {.source_bytes_max = 4096, .compile_ms_max = 20'000, .compile_fuel_max = 50'000});
  if (!grammar.ok()) {
    BALEEN_CHECK(absl::IsInvalidArgument(grammar.status()), "the source is at fault");
    BALEEN_CHECK(grammar.status().message().size() < 600, "errors are short");
    return 0;
  }
  const std::unique_ptr<Matcher> matcher = *Matcher::Create(*grammar);
  std::vector<std::uint32_t> mask(matcher->vocabulary().mask_words());
  for (int i = 0; i < kTokens; ++i) {
    if (!matcher->Mask(mask).ok()) return 0;  // a limit
    const std::int32_t token = Choose(mask, data[static_cast<std::size_t>(i) % size]);
    const absl::Status status = matcher->Consume(token);
    BALEEN_CHECK(status.ok() || matcher->is_stopped(), "what the mask allows may follow");
    if (!status.ok()) return 0;  // a limit of the parser
  }
  return 0;
}
