// The reference device: host memory and the plain C++ ops.
#include "worker/device/reference_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "kernels/reference/reference.h"

namespace baleen::worker {
namespace {

constexpr std::size_t kAlignment = 64;

// From this size on a buffer has a mapping of its own, so that its memory goes back to the system
// with it: malloc would keep it for another one. AddressSanitizer watches only what malloc gives.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kMappedBytesMin = std::numeric_limits<std::size_t>::max();
#else
constexpr std::size_t kMappedBytesMin = 256u << 10;
#endif

// The mapping begins one alignment before the data, with its size.
absl::StatusOr<Buffer> Map(std::size_t bytes) {
  const std::size_t mapped = bytes + kAlignment;
  void* const begin = mapped < bytes ? MAP_FAILED
                                     : mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        fmt::format("reference device: no {} bytes of memory", bytes));
  }
  std::memcpy(begin, &mapped, sizeof(mapped));
  return Buffer(static_cast<std::byte*>(begin) + kAlignment, bytes, [](std::byte* data) {
    std::byte* const mapping = data - kAlignment;
    std::size_t size = 0;
    std::memcpy(&size, mapping, sizeof(size));
    munmap(mapping, size);
  });
}

class ReferenceDevice final : public Device {
 public:
  explicit ReferenceDevice(std::byte fill) : fill_(fill) {}

  std::string_view name() const override { return "reference"; }

  const kernels::OpTable& ops() const override { return kernels::reference::Ops(); }

  absl::StatusOr<Buffer> Allocate(std::size_t bytes) override {
    if (bytes >= kMappedBytesMin) {
      absl::StatusOr<Buffer> buffer = Map(bytes);
      if (buffer.ok()) std::memset(buffer->data(), static_cast<int>(fill_), bytes);
      return buffer;
    }
    const std::size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* data = padded < bytes ? nullptr : std::aligned_alloc(kAlignment, padded + kAlignment);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          fmt::format("reference device: no {} bytes of memory", bytes));
    }
    std::memset(data, static_cast<int>(fill_), padded);
    return Buffer(static_cast<std::byte*>(data), bytes, [](std::byte* block) { std::free(block); });
  }

 private:
  const std::byte fill_;
};

}  // namespace

std::unique_ptr<Device> MakeReferenceDevice(std::byte fill) {
  return std::make_unique<ReferenceDevice>(fill);
}

}  // namespace baleen::worker
