// LineSplitter: whole lines out of arbitrary pieces, bounded.
#include "tools/cli/cluster/line_splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace baleen::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Split(const std::vector<std::string>& pieces) {
  LineSplitter splitter;
  std::vector<std::string> lines;
  const auto keep = [&](std::string_view line) { lines.emplace_back(line); };
  for (const std::string& piece : pieces) splitter.Append(piece, keep);
  splitter.Finish(keep);
  return lines;
}

TEST(LineSplitter, GivesTheSameLinesHoweverTheBytesAreCut) {
  const std::string text = "first\n\nthird line\r\nlast without newline";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_THAT(Split({text.substr(0, cut), text.substr(cut)}),
                ElementsAre("first", "", "third line", "last without newline"))
        << "cut at " << cut;
  }
}

TEST(LineSplitter, HoldsBackALineUntilItIsComplete) {
  LineSplitter splitter;
  std::vector<std::string> lines;
  const auto keep = [&](std::string_view line) { lines.emplace_back(line); };
  splitter.Append("half", keep);
  EXPECT_THAT(lines, IsEmpty());
  splitter.Append(" done\nnext", keep);
  EXPECT_THAT(lines, ElementsAre("half done"));
}

TEST(LineSplitter, NothingInNothingOut) { EXPECT_THAT(Split({""}), IsEmpty()); }

TEST(LineSplitter, CutsALineThatIsTooLong) {
  const std::size_t max = LineSplitter::kLineBytesMax;
  const auto lines = Split({std::string(2 * max + 5, 'x') + "\nshort\n"});
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].size(), max);
  EXPECT_EQ(lines[1].size(), max);
  EXPECT_EQ(lines[2], "xxxxx");
  EXPECT_EQ(lines[3], "short");
}

}  // namespace
}  // namespace baleen::cli
