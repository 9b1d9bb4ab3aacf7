// Topology: what people write for groups and ranks.
#include "tools/cli/cluster/spec/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace baleen::cli {
namespace {

using ::testing::HasSubstr;

TEST(Topology, ReadsGroupsAndRanksAndWritesThemBack) {
  struct Case {
    const char* text;
    Topology topology;
    const char* shortest;
  };
  for (const Case& c :
       {Case{"0", {.groups = 0, .ranks = 1}, "0"}, Case{"1", {.groups = 1, .ranks = 1}, "1"},
        Case{"64", {.groups = 64, .ranks = 1}, "64"}, Case{"1x4", {.groups = 1, .ranks = 4}, "1x4"},
        Case{"2x2", {.groups = 2, .ranks = 2}, "2x2"}, Case{"3x1", {.groups = 3, .ranks = 1}, "3"},
        Case{"1x64", {.groups = 1, .ranks = 64}, "1x64"},
        Case{"8x8", {.groups = 8, .ranks = 8}, "8x8"}}) {
    const auto topology = ParseTopology(c.text);
    ASSERT_TRUE(topology.ok()) << c.text << ": " << topology.status();
    EXPECT_EQ(*topology, c.topology) << c.text;
    EXPECT_EQ(ToString(*topology), c.shortest);
  }
}

TEST(Topology, CountsItsWorkers) {
  EXPECT_EQ((Topology{.groups = 3, .ranks = 4}).workers(), 12u);
  EXPECT_EQ(Topology{}.workers(), 0u);
}

TEST(Topology, RefusesWhatIsNoNumberOfGroupsAndRanksWithinTheLimits) {
  for (const char* text : {"",      "x",    "1x",         "x4",           "0x4",
                           "4x0",   "0x0",  "00",         "01",           "1x04",
                           "-1",    "+1",   "1x-1",       " 1",           "1 ",
                           "1 x 4", "1X4",  "1x4x2",      "4,2",          "65",
                           "1x65",  "65x1", "4294967297", "1x4294967297", "99999999999999999999",
                           "four"}) {
    const auto topology = ParseTopology(text);
    EXPECT_EQ(topology.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(topology.status().message()), HasSubstr("64")) << text;
  }
}

TEST(Topology, RefusesMoreWorkersThanThereMayBe) {
  EXPECT_EQ(ParseTopology("9x8").status().message(), "'9x8' makes 72 workers, the most are 64");
}

TEST(Topology, ALongTextIsNotRepeatedInItsError) {
  EXPECT_LT(ParseTopology(std::string(100'000, '7')).status().message().size(), 200u);
}

}  // namespace
}  // namespace baleen::cli
