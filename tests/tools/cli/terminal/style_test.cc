// How text looks: colours only where wanted, and no control characters of strangers.
#include "tools/cli/terminal/style.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <array>
#include <set>

namespace baleen::cli {
namespace {

TEST(Style, PaintsOnlyWithColours) {
  EXPECT_EQ(Style(true).Paint(Look::kDim, "text"), "\x1b[2mtext\x1b[0m");
  EXPECT_EQ(Style(true).Paint(Look::kCyan, "text"), "\x1b[36mtext\x1b[0m");
  EXPECT_EQ(Style(true).Paint(Look::kPlain, "text"), "text");
  EXPECT_EQ(Style(true).Paint(Look::kDim, ""), "");
  EXPECT_EQ(Style(false).Paint(Look::kDim, "text"), "text");
}

class Environment : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GE(terminal_ = ::posix_openpt(O_RDWR | O_NOCTTY), 0);
    ::setenv("TERM", "xterm", 1);
    ::unsetenv("NO_COLOR");
  }
  void TearDown() override {
    ::close(terminal_);
    ::unsetenv("NO_COLOR");
  }
  int terminal_ = -1;
};

TEST_F(Environment, ColoursOnATerminalOnly) {
  EXPECT_TRUE(ColoursOn(terminal_));
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  EXPECT_FALSE(ColoursOn(pipe[1]));
  for (const int end : pipe) ::close(end);
}

TEST_F(Environment, NoColorIsRespectedUnlessEmpty) {
  ::setenv("NO_COLOR", "1", 1);
  EXPECT_FALSE(ColoursOn(terminal_));
  ::setenv("NO_COLOR", "", 1);
  EXPECT_TRUE(ColoursOn(terminal_));
}

TEST_F(Environment, ADumbTerminalHasNoColours) {
  ::setenv("TERM", "dumb", 1);
  EXPECT_FALSE(ColoursOn(terminal_));
  ::unsetenv("TERM");
  EXPECT_FALSE(ColoursOn(terminal_));
}

TEST(LookOf, IsStableAndTellsTheProcessesOfTheUsualClusterApart) {
  EXPECT_EQ(LookOf("decode-0.0"), LookOf("decode-0.0"));
  const std::set<Look> looks = {LookOf("up"), LookOf("router"), LookOf("prefill-0.0"),
                                LookOf("decode-0.0")};
  EXPECT_EQ(looks.size(), 4u);
}

TEST(WithoutControls, KeepsTextAndDropsWhatMovesATerminal) {
  struct Case {
    const char* in;
    const char* out;
  };
  for (const Case& c :
       {Case{"plain text\n\tindented", "plain text\n\tindented"},
        Case{"\x1b[31mred\x1b[0m", "[31mred[0m"}, Case{"\x1b]0;title\a", "]0;title"},
        Case{"a\rb\x7f\x08", "ab"},
        Case{"\xc2\x9b"
             "31m",
             "31m"},
        Case{"\xc2\xa0\xc3\x9f\xe2\x82\xac", "\xc2\xa0\xc3\x9f\xe2\x82\xac"}, Case{"", ""}}) {
    EXPECT_EQ(WithoutControls(c.in), c.out);
  }
}

TEST(WriteAll, SaysWhenTheReaderIsGone) {
  ::signal(SIGPIPE, SIG_IGN);
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  EXPECT_TRUE(WriteAll(pipe[1], "hello"));
  ::close(pipe[0]);
  EXPECT_FALSE(WriteAll(pipe[1], "hello"));
  ::close(pipe[1]);
}

}  // namespace
}  // namespace baleen::cli
