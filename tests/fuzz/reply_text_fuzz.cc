// Fuzz target: any tokens as a reply. Each piece of text is well-formed; together they are the text
// of all tokens at once, however the tokens were grouped; tags split it in the same place.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "router/text/reply_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::IsValidUtf8;
using baleen::router::ReplyDelta;
using baleen::router::ReplyStream;
using baleen::router::TokenTable;

constexpr std::int32_t kOpen = 0xF8;  // bytes that no UTF-8 text has stand for tokens
constexpr std::int32_t kClose = 0xF9;
constexpr std::int32_t kSpecial = 0xFA;

const TokenTable& Table() {
  static const TokenTable table = [] {
    TokenTable result;
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      result.Add({.bytes = byte == kOpen      ? "<think>"
                           : byte == kClose   ? "</think>"
                           : byte == kSpecial ? "<special>"
                                              : std::string_view(&c, 1),
                  .exists = true,
                  .special = byte == kSpecial});
    }
    return result;
  }();
  return table;
}

ReplyDelta Run(const ReplyStream::Options& options, std::span<const std::int32_t> ids,
               std::size_t group) {
  ReplyStream stream(&Table(), options);
  ReplyDelta all;
  for (std::size_t at = 0; at < ids.size(); at += group) {
    ReplyDelta delta;
    stream.Push(ids.subspan(at, std::min(group, ids.size() - at)), &delta);
    BALEEN_CHECK(IsValidUtf8(delta.reasoning) && IsValidUtf8(delta.content),
                 "a piece is well-formed");
    all.reasoning += delta.reasoning;
    all.content += delta.content;
  }
  stream.Finish(&all);
  BALEEN_CHECK(stream.reasoning_tokens() <= ids.size(), "reasoning is part of the reply");
  return all;
}

}  // namespace

// The first byte chooses options and grouping, each other byte is a token.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::vector<std::int32_t> ids(data + 1, data + size);
  const bool tags_are_tokens = (data[0] & 1) != 0;
  ReplyStream::Options options = {.splits_reasoning = true,
                                  .starts_inside = (data[0] & 2) != 0,
                                  .open_id = tags_are_tokens ? kOpen : -1,
                                  .close_id = tags_are_tokens ? kClose : -1};
  const std::size_t group = 2 + (data[0] >> 2);
  const ReplyDelta one_by_one = Run(options, ids, 1);
  const ReplyDelta grouped = Run(options, ids, group);
  BALEEN_CHECK(one_by_one.reasoning == grouped.reasoning && one_by_one.content == grouped.content,
               "the split does not depend on the grouping");
  BALEEN_CHECK(one_by_one.reasoning.empty() ||
                   (one_by_one.reasoning.front() != '\n' && one_by_one.reasoning.back() != '\n'),
               "reasoning has no line feeds at its ends");
  options.splits_reasoning = false;
  const ReplyDelta whole = Run(options, ids, group);
  BALEEN_CHECK(whole.reasoning.empty() && whole.content == Detokenize(Table(), ids),
               "pieces add up to the text of all tokens");
  return 0;
}
