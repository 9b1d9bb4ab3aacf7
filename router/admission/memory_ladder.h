// What a router that runs out of memory does about it, step by step, before the kernel ends it.
#pragma once

#include <cstdint>
#include <string_view>

namespace baleen::router {

enum class MemoryLevel : std::uint8_t {
  kNormal,
  kRefuseLow,  // from 80 %: requests below normal priority are refused
  kRefuseAll,  // from 90 %: no request is taken
  kCancel,     // from 95 %: requests are ended, lowest priority first, youngest first
};

std::string_view ToString(MemoryLevel level);  // "normal", "refuse_low", ...

struct MemoryReading {
  std::uint64_t accounted_bytes = 0;  // requests and replies that wait for their readers
  std::uint64_t resident_bytes = 0;   // of the process
};

// The larger of both counts: the account knows first what is about to be resident. Pure.
// `limit_bytes` 0: no limit.
MemoryLevel LevelOf(const MemoryReading& reading, std::uint64_t limit_bytes);

// The process's resident memory, 0 when it cannot be read.
std::uint64_t ResidentBytes();

// The memory limit of the process's control group (version 2, else 1), 0 when there is none.
std::uint64_t MemoryLimitOfControlGroup();

}  // namespace baleen::router
