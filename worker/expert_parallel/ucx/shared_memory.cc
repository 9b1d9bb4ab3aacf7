#include "worker/expert_parallel/ucx/shared_memory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace baleen::worker {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Create(std::size_t bytes, std::byte* at) {
  SharedMemory memory(memfd_create("baleen expert_parallel", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                      bytes);
  if (memory.fd_ < 0 || ftruncate(memory.fd_, static_cast<off_t>(bytes)) != 0 ||
      fcntl(memory.fd_, F_ADD_SEALS, kSeals) != 0 || !memory.Map(at)) {
    return absl::ResourceExhaustedError(
        fmt::format("all-to-all: no {} bytes of shared memory: {}", bytes, std::strerror(errno)));
  }
  return memory;
}

std::optional<SharedMemory> SharedMemory::Open(pid_t pid, int fd, std::size_t bytes) {
  const int opened =
      open(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  SharedMemory memory(opened, bytes);
  struct stat status {};
  if (opened < 0 || fcntl(opened, F_GET_SEALS) != kSeals || fstat(opened, &status) != 0 ||
      std::cmp_not_equal(status.st_size, bytes) || !memory.Map(nullptr)) {
    return std::nullopt;
  }
  close(std::exchange(memory.fd_, -1));
  return memory;
}

bool SharedMemory::Map(std::byte* at) {
  void* mapped = mmap(at, bytes_, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_NORESERVE | (at != nullptr ? MAP_FIXED : 0), fd_, 0);
  if (mapped == MAP_FAILED) return false;
  data_ = static_cast<std::byte*>(mapped);
  return true;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      bytes_(other.bytes_),
      data_(std::exchange(other.data_, nullptr)) {}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
  if (fd_ >= 0) close(fd_);
}

}  // namespace baleen::worker
