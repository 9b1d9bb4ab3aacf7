// What the worker asks of the machine.
#include "worker/host.h"

#include <gtest/gtest.h>

namespace baleen::worker {
namespace {

TEST(Host, ThisMachineWillDo) {
  EXPECT_TRUE(CheckCpu().ok()) << CheckCpu();
  EXPECT_GT(AvailableMemoryBytes(), 1u << 20);
}

TEST(Host, ProgramsAreToldApartByTheirBuild) {
  const std::string id = BuildId();
  EXPECT_GE(id.size(), 16u);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), std::string::npos) << id;
}

TEST(Host, MeminfoIsReadByKey) {
  constexpr char kText[] = "MemTotal:  100 kB\nMemFree: 7 kB\nMemAvailable:\t  42 kB\nOdd:\n";
  EXPECT_EQ(MeminfoBytes(kText, "MemTotal"), 100u * 1024);
  EXPECT_EQ(MeminfoBytes(kText, "MemAvailable"), 42u * 1024);
  EXPECT_EQ(MeminfoBytes(kText, "Mem"), 0u);
  EXPECT_EQ(MeminfoBytes(kText, "Odd"), 0u);
  EXPECT_EQ(MeminfoBytes("", "MemTotal"), 0u);
}

}  // namespace
}  // namespace baleen::worker
