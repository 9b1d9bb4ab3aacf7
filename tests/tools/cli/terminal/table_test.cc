// Tables and figures for people, as golden text.
#include "tools/cli/terminal/table.h"

#include <gtest/gtest.h>

namespace baleen::cli {
namespace {

TEST(Table, AlignsValuesByCharacters) {
  EXPECT_EQ(RenderTable({{"gRPC", "127.0.0.1:1"}, {"größe", "x"}, {"time to first token", "3 ms"}},
                        Style(false)),
            "  gRPC                 127.0.0.1:1\n"
            "  größe                x\n"
            "  time to first token  3 ms\n");
  EXPECT_EQ(RenderTable({}, Style(false)), "");
}

TEST(Table, DimsNamesOnATerminal) {
  EXPECT_EQ(RenderTable({{"a", "1"}, {"bc", "2"}}, Style(true)),
            "  \x1b[2ma\x1b[0m   1\n  \x1b[2mbc\x1b[0m  2\n");
}

TEST(Columns, AlignsFiguresToTheRightUnderTheirNames) {
  EXPECT_EQ(RenderColumns({{"layer", "Größe"}, {"0", "1.5"}, {"1234567", "12"}}, Style(false)),
            "    layer  Größe\n"
            "        0    1.5\n"
            "  1234567     12\n");
  EXPECT_EQ(RenderColumns({{"a"}, {"bc"}}, Style(true)), "   \x1b[2ma\x1b[0m\n  bc\n");
  EXPECT_EQ(RenderColumns({}, Style(false)), "");
}

TEST(FormatBytes, ThreeDigitsInDecimalUnits) {
  struct Case {
    std::uint64_t bytes;
    const char* text;
  };
  for (const Case& c :
       {Case{0, "0 B"}, Case{999, "999 B"}, Case{1000, "1.00 kB"}, Case{9'994, "9.99 kB"},
        Case{9'996, "10.0 kB"}, Case{81'920, "81.9 kB"}, Case{99'960, "100 kB"},
        Case{999'499, "999 kB"}, Case{999'500, "1.00 MB"}, Case{9'760'932, "9.76 MB"},
        Case{671'000'000'000, "671 GB"}, Case{~std::uint64_t{0}, "18447 PB"}}) {
    EXPECT_EQ(FormatBytes(c.bytes), c.text);
  }
}

TEST(FormatMicroseconds, PicksAUnit) {
  struct Case {
    std::uint64_t us;
    const char* text;
  };
  for (const Case& c :
       {Case{0, "0 us"}, Case{999, "999 us"}, Case{1000, "1.00 ms"}, Case{12'345, "12.3 ms"},
        Case{999'499, "999 ms"}, Case{999'500, "1.00 s"}, Case{61'000'000, "61.0 s"}}) {
    EXPECT_EQ(FormatMicroseconds(c.us), c.text);
  }
}

}  // namespace
}  // namespace baleen::cli
