// The reference device: host memory and the plain C++ ops.
#include "worker/device/reference_device.h"

#include <cstdlib>
#include <cstring>

#include "absl/status/status.h"
#include "fmt/format.h"
#include "kernels/reference/reference.h"

namespace baleen::worker {
namespace {

constexpr std::size_t kAlignment = 64;

class ReferenceDevice final : public Device {
 public:
  explicit ReferenceDevice(std::byte fill) : fill_(fill) {}

  std::string_view name() const override { return "reference"; }

  const kernels::OpTable& ops() const override { return kernels::reference::Ops(); }

  absl::StatusOr<Buffer> Allocate(std::size_t bytes) override {
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
