// What the worker asks of the machine it runs on.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace baleen::worker {

// FAILED_PRECONDITION names what the CPU lacks of x86-64-v3 (AVX2, FMA, BMI2: every server since
// 2015), which the kernels need.
absl::Status CheckCpu();

// The linker's fingerprint of this program in hexadecimal digits: two that differ were not built
// from the same sources in the same way. Empty when it was linked without one.
std::string BuildId();

// Memory that can be had without swapping: MemAvailable, or less where a control group allows less.
// Never fails: 0 when nobody says.
std::uint64_t AvailableMemoryBytes();

// The value of `key` in text as /proc/meminfo has it ("MemAvailable:   1234 kB"), in bytes; 0
// without the key.
std::uint64_t MeminfoBytes(std::string_view meminfo, std::string_view key);

}  // namespace baleen::worker
