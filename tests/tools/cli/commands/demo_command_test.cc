// The demo's judgement of an answer, and its figures.
#include "tools/cli/commands/demo_command.h"

#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

TEST(ContainsNumber, FindsWholeNumbersOnly) {
  struct Case {
    const char* text;
    bool found;
  };
  for (const Case& c : {Case{"936", true}, Case{"347 + 589 = 936", true}, Case{"is 936.", true},
                        Case{"9360", false}, Case{"1936", false}, Case{"19360, but 936", true},
                        Case{"", false}, Case{"93 6", false}}) {
    EXPECT_EQ(ContainsNumber(c.text, "936"), c.found) << c.text;
  }
}

TEST(FigureRows, ShowsSpeedRanksAndBytes) {
  ChatResult reply;
  reply.usage.set_completion_tokens(65);
  reply.usage.set_reasoning_tokens(50);
  reply.timing.set_prefill_worker("prefill-0.0");
  reply.timing.set_decode_worker("decode-0.0");
  reply.timing.set_time_to_first_token_us(12'345);
  reply.timing.set_total_us(1'012'345);
  reply.timing.set_kv_transfer_bytes(81'920);
  EXPECT_EQ(RenderTable(FigureRows(reply), Style(false)),
            "  time to first token  12.3 ms\n"
            "  tokens/s             64, 65 tokens of which 50 reason\n"
            "  prefilled by         prefill-0.0\n"
            "  decoded by           decode-0.0\n"
            "  KV moved             81.9 kB\n");
}

}  // namespace
}  // namespace baleen::cli
