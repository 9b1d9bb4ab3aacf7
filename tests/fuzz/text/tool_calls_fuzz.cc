// Fuzz target: any tokens as a reply with tool calls. However tokens are grouped the calls and the
// content are the same; names are names; and there are no more calls than there may be.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "observability/base/check.h"
#include "proto/contract/limits.h"
#include "router/text/reply_stream.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

using baleen::router::IsValidUtf8;
using baleen::router::ReplyDelta;
using baleen::router::ReplyStream;
using baleen::router::TokenTable;
using baleen::router::ToolCallDelta;
using baleen::router::ToolTokens;

// Bytes that no UTF-8 text has stand for tokens.
constexpr ToolTokens kTools = {.calls_begin = 0xF8,
                               .calls_end = 0xF9,
                               .call_begin = 0xFA,
                               .call_end = 0xFB,
                               .separator = 0xFC};
constexpr std::int32_t kClose = 0xFD;

const TokenTable& Table() {
  static const TokenTable table = [] {
    TokenTable result;
    for (int byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      result.Add({.bytes = byte >= 0xF8 ? std::string_view("<tag>") : std::string_view(&c, 1),
                  .exists = true});
    }
    return result;
  }();
  return table;
}

void Add(const ReplyDelta& delta, ReplyDelta& all) {
  BALEEN_CHECK(IsValidUtf8(delta.content) && IsValidUtf8(delta.reasoning), "pieces are text");
  all.content += delta.content;
  all.reasoning += delta.reasoning;
  for (const ToolCallDelta& part : delta.tool_calls) {
    if (part.index == all.tool_calls.size()) {
      BALEEN_CHECK(!part.name.empty() && part.name.size() <= baleen::contract::kToolNameBytesMax,
                   "a call begins with its name");
      all.tool_calls.push_back(part);
    } else {
      BALEEN_CHECK(part.index + 1 == all.tool_calls.size() && part.name.empty(),
                   "parts come in order");
      all.tool_calls.back().arguments += part.arguments;
    }
  }
}

ReplyDelta Run(const ReplyStream::Options& options, std::span<const std::int32_t> ids,
               std::size_t group) {
  ReplyStream stream(&Table(), options);
  ReplyDelta all;
  for (std::size_t at = 0; at < ids.size(); at += group) {
    ReplyDelta delta;
    const auto pushed = ids.subspan(at, std::min(group, ids.size() - at));
    const std::size_t taken = stream.Push(pushed, &delta);
    BALEEN_CHECK(taken == pushed.size() || stream.stopped(), "all are taken until it stops");
    Add(delta, all);
  }
  ReplyDelta delta;
  stream.Finish(&delta);
  Add(delta, all);
  BALEEN_CHECK(stream.tool_calls() == all.tool_calls.size(), "calls are counted");
  BALEEN_CHECK(stream.tool_calls() <= options.tool_calls_max, "and bounded");
  return all;
}

}  // namespace

// The first byte chooses options and grouping, each other byte is a token.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::vector<std::int32_t> ids(data + 1, data + size);
  const ReplyStream::Options options = {.starts_inside = (data[0] & 1) != 0,
                                        .open_id = 0xFE,
                                        .close_id = kClose,
                                        .tool_tokens = kTools,
                                        .tool_calls_max = (data[0] & 2) != 0 ? 1u : 128u};
  const ReplyDelta one_by_one = Run(options, ids, 1);
  const ReplyDelta grouped = Run(options, ids, 2 + (data[0] >> 2));
  BALEEN_CHECK(one_by_one.content == grouped.content && one_by_one.reasoning == grouped.reasoning,
               "the content does not depend on the grouping");
  BALEEN_CHECK(std::ranges::equal(one_by_one.tool_calls, grouped.tool_calls,
                                  [](const ToolCallDelta& a, const ToolCallDelta& b) {
                                    return a.name == b.name && a.arguments == b.arguments;
                                  }),
               "nor do the calls");
  return 0;
}
