#include "tools/cli/doctor/machine_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netdb.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "tools/cli/cluster/descriptor.h"
#include "tools/cli/cluster/supervisor.h"
#include "tools/cli/terminal/table.h"
#include "worker/host.h"

namespace baleen::cli {
namespace {

// What Docker gives a container; UCX maps a few MB for each pair of processes.
constexpr std::uint64_t kSharedMemoryBytesMin = 64'000'000;
// Each process holds some dozens; every client and attached worker adds one or two.
constexpr std::uint64_t kOpenFilesMin = 1024;

// Extensions beyond x86-64-v3 that kernels can use.
std::vector<std::string> FastFeatures() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    names.emplace_back("AVX-512");
  }
  if (__builtin_cpu_supports("avx512vbmi")) names.emplace_back("VBMI");
  if (__builtin_cpu_supports("avx512bf16")) names.emplace_back("AVX-512 bf16");
  if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16")) {
    names.emplace_back("AMX bf16");
  }
#endif
  return names;
}

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

Check ListenFailed(const std::string& address, const char* what) {
  return {.name = "port",
          .level = CheckLevel::kBad,
          .detail = fmt::format("{}: {}", address, what),
          .fix = "choose another --listen address, or stop what uses it (ss -ltnp shows it)"};
}

}  // namespace

Check CheckCpuFeatures() {
  Check check{.name = "CPU"};
#if !defined(__x86_64__)
  return {.name = "CPU",
          .level = CheckLevel::kBad,
          .detail = "this is no x86-64 CPU",
          .fix = "use an x86-64 machine of 2015 or later"};
#endif
  if (const absl::Status status = worker::CheckCpu(); !status.ok()) {
    check.level = CheckLevel::kBad;
    check.detail = std::string(status.message());
    check.fix =
        "use a machine with AVX2 and FMA; in a virtual machine, pass the host's CPU through";
    return check;
  }
  std::vector<std::string> features = {"x86-64-v3"};
  for (std::string& name : FastFeatures()) features.push_back(std::move(name));
  const int cores = UsableCores();
  check.detail =
      fmt::format("{}; {} core{}", fmt::join(features, ", "), cores, cores == 1 ? "" : "s");
  return check;
}

Check CheckExecutables() {
  const auto found = FindExecutables();
  if (found.ok()) return {.name = "programs", .detail = "baleen-router and baleen-worker are here"};
  return {.name = "programs",
          .level = CheckLevel::kBad,
          .detail = std::string(found.status().message()),
          .fix = "make build"};
}

Check CheckMemory(std::uint64_t available_bytes, std::uint64_t needed_bytes) {
  Check check{.name = "memory", .detail = FormatBytes(available_bytes) + " available"};
  if (needed_bytes > 0) {
    check.detail += fmt::format(", the workers need about {}", FormatBytes(needed_bytes));
  }
  if (needed_bytes > available_bytes) {
    check.level = CheckLevel::kBad;
    check.fix = "fewer workers, fewer --kv-blocks, a smaller model, or a higher memory limit";
  }
  return check;
}

Check CheckSharedMemory(std::uint64_t free_bytes) {
  Check check{.name = "shared memory",
              .detail = fmt::format("{} free in /dev/shm", FormatBytes(free_bytes))};
  if (free_bytes < kSharedMemoryBytesMin) {
    check.level = CheckLevel::kNote;
    check.detail += fmt::format(", UCX wants {}", FormatBytes(kSharedMemoryBytesMin));
    check.fix = "docker run --shm-size=1g; or UCX_TLS=tcp,self, which is slower";
  }
  return check;
}

std::uint64_t SharedMemoryFreeBytes() {
  struct statvfs facts {};
  if (::statvfs("/dev/shm", &facts) != 0) return 0;
  return std::uint64_t{facts.f_bavail} * facts.f_frsize;
}

Check CheckOpenFiles(std::uint64_t limit) {
  Check check{.name = "open files", .detail = fmt::format("up to {} for a process", limit)};
  if (limit < kOpenFilesMin) {
    check.level = CheckLevel::kNote;
    check.fix = fmt::format("ulimit -n {}", kOpenFilesMin);
  }
  return check;
}

std::uint64_t OpenFilesLimit() {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

Check CheckListen(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return ListenFailed(address, "not host:port");
  const addrinfo hints{.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(address.substr(0, colon).c_str(),
                                  address.substr(colon + 1).c_str(), &hints, &found);
  if (error != 0) return ListenFailed(address, ::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  const Descriptor server(::socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0));
  const int on = 1;  // as servers do: a connection that just closed does not hold the port
  ::setsockopt(server.number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!server.open() || ::bind(server.number(), found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(server.number(), 1) != 0) {
    return ListenFailed(address, std::strerror(errno));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  ::getsockname(server.number(), reinterpret_cast<sockaddr*>(&bound), &size);
  const Descriptor client(::socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, 0));
  if (::connect(client.number(), reinterpret_cast<sockaddr*>(&bound), size) != 0) {
    return ListenFailed(address, std::strerror(errno));
  }
  return {.name = "port", .detail = fmt::format("{} can be listened on and reached", address)};
}

}  // namespace baleen::cli
