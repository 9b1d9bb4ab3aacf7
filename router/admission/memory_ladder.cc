#include "router/admission/memory_ladder.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "observability/base/check.h"

namespace baleen::router {
namespace {

struct Step {
  MemoryLevel level;
  std::uint64_t percent;
};
constexpr Step kSteps[] = {
    {MemoryLevel::kCancel, 95}, {MemoryLevel::kRefuseAll, 90}, {MemoryLevel::kRefuseLow, 80}};

// Version 1 says "no limit" with a number near 2^63.
constexpr std::uint64_t kNoLimitFrom = std::uint64_t{1} << 62;

// The first number of a file; 0 when there is none.
std::uint64_t NumberIn(const char* path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  file >> number;
  return file ? number : 0;
}

}  // namespace

std::string_view ToString(MemoryLevel level) {
  switch (level) {
    case MemoryLevel::kNormal:
      return "normal";
    case MemoryLevel::kRefuseLow:
      return "refuse_low";
    case MemoryLevel::kRefuseAll:
      return "refuse_all";
    case MemoryLevel::kCancel:
      return "cancel";
  }
  BALEEN_CHECK(false, "a level has one of four values");
}

MemoryLevel LevelOf(const MemoryReading& reading, std::uint64_t limit_bytes) {
  if (limit_bytes == 0) return MemoryLevel::kNormal;
  const std::uint64_t used = std::max(reading.accounted_bytes, reading.resident_bytes);
  for (const Step& step : kSteps) {
    // In hundredths of the limit, so that nothing overflows.
    if (used / step.percent >= limit_bytes / 100) return step.level;
  }
  return MemoryLevel::kNormal;
}

std::uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t size = 0;
  std::uint64_t resident = 0;
  file >> size >> resident;
  return file ? resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

std::uint64_t MemoryLimitOfControlGroup() {
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const std::uint64_t limit = NumberIn(path);  // "max" is no number
    if (limit > 0 && limit < kNoLimitFrom) return limit;
  }
  return 0;
}

}  // namespace baleen::router
