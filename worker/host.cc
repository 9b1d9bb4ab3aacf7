#include "worker/host.h"

#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>
#include <utility>

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

// The contents of the first note of `type` in `notes`; empty without one.
std::string NoteIn(std::string_view notes, std::uint32_t type) {
  const auto padded = [](std::size_t size) { return (size + 3) & ~std::size_t{3}; };
  while (notes.size() >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) header;
    std::memcpy(&header, notes.data(), sizeof(header));
    notes.remove_prefix(sizeof(header));
    const std::size_t name = padded(header.n_namesz);
    if (name > notes.size() || header.n_descsz > notes.size() - name) return "";
    if (header.n_type == type) return std::string(notes.substr(name, header.n_descsz));
    notes.remove_prefix(std::min(notes.size(), name + padded(header.n_descsz)));
  }
  return "";
}

}  // namespace

std::string BuildId() {
  std::string id;
  // The first object is the program itself; a result other than 0 ends the iteration.
  dl_iterate_phdr(
      [](dl_phdr_info* program, std::size_t /*size*/, void* found) {
        for (int i = 0; i < program->dlpi_phnum; ++i) {
          const auto& segment = program->dlpi_phdr[i];
          if (segment.p_type != PT_NOTE) continue;
          const auto* notes = reinterpret_cast<const char*>(program->dlpi_addr + segment.p_vaddr);
          std::string bytes = NoteIn({notes, segment.p_memsz}, NT_GNU_BUILD_ID);
          if (bytes.empty()) continue;
          *static_cast<std::string*>(found) = std::move(bytes);
          break;
        }
        return 1;
      },
      &id);
  std::string digits;
  for (const char byte : id) digits += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return digits;
}

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
