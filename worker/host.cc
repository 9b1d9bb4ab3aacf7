#include "worker/host.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <string>

namespace baleen::worker {
namespace {

constexpr std::size_t kFileBytesMax = 64u << 10;  // /proc/meminfo has some 1.5 kB

// The beginning of a small file; empty when it cannot be read.
std::string ReadSmallFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kFileBytesMax, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

// The number that `text` begins with; `otherwise` when it begins with none ("max").
std::uint64_t NumberOr(std::string_view text, std::uint64_t otherwise) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? value : otherwise;
}

}  // namespace

absl::Status CheckCpu() {
#if defined(__x86_64__)
  const char* missing = nullptr;
  if (!__builtin_cpu_supports("avx2")) missing = "AVX2";
  if (!__builtin_cpu_supports("fma")) missing = "FMA";
  if (!__builtin_cpu_supports("bmi2")) missing = "BMI2";
  if (missing != nullptr) {
    return absl::FailedPreconditionError(std::string("this CPU lacks ") + missing +
                                         "; Baleen needs x86-64-v3 (AVX2, FMA, BMI2)");
  }
#endif
  return absl::OkStatus();
}

std::uint64_t MeminfoBytes(std::string_view meminfo, std::string_view key) {
  const std::string line = "\n" + std::string(key) + ":";
  const std::string text = "\n" + std::string(meminfo);
  const std::size_t at = text.find(line);
  if (at == std::string::npos) return 0;
  const std::size_t number = text.find_first_not_of(" \t", at + line.size());
  if (number == std::string::npos) return 0;
  return NumberOr(std::string_view(text).substr(number), 0) * 1024;
}

std::uint64_t AvailableMemoryBytes() {
  constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t machine = MeminfoBytes(ReadSmallFile("/proc/meminfo"), "MemAvailable");
  // Version 2 of control groups, as a container sees its own.
  const std::uint64_t limit = NumberOr(ReadSmallFile("/sys/fs/cgroup/memory.max"), kUnlimited);
  if (limit == kUnlimited) return machine;
  const std::uint64_t used = NumberOr(ReadSmallFile("/sys/fs/cgroup/memory.current"), 0);
  return std::min(machine, limit - std::min(limit, used));
}

}  // namespace baleen::worker
