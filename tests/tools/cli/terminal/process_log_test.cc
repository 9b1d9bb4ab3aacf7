// Log lines of several processes.
#include "tools/cli/terminal/process_log.h"

#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

TEST(ProcessLog, PutsThePaddedNameInFront) {
  EXPECT_EQ(FormatLogLine("router", "listening", 11, Style(false)), "router      | listening\n");
  EXPECT_EQ(FormatLogLine("prefill-0.0", "", 11, Style(false)), "prefill-0.0 | \n");
  EXPECT_EQ(FormatLogLine("a-long-name", "x", 3, Style(false)), "a-long-name | x\n");
}

TEST(ProcessLog, ColoursTheNameOnly) {
  EXPECT_EQ(FormatLogLine("up", "ready", 2, Style(true)), "\x1b[1mup | \x1b[0mready\n");
}

TEST(ProcessLog, AChildCanNotControlTheTerminal) {
  EXPECT_EQ(FormatLogLine("up", "a\x1b[2Jb\rc", 2, Style(false)), "up | a[2Jbc\n");
}

}  // namespace
}  // namespace baleen::cli
