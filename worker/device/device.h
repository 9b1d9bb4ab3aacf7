// The device of a rank: its memory and its op table. A seam: the reference device runs everything
// in plain C++; CPU kernels and CUDA come beside it.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "kernels/include/ops.h"

namespace baleen::worker {

// Device memory, owned. Move-only; gives itself back.
class Buffer {
 public:
  using Release = void (*)(std::byte*);

  Buffer() = default;
  Buffer(std::byte* data, std::size_t bytes, Release release)
      : data_(data, release), bytes_(bytes) {}

  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<std::byte, Release> data_{nullptr, [](std::byte*) {}};
  std::size_t bytes_ = 0;
};

// Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  virtual const kernels::OpTable& ops() const = 0;
  // Aligned to 64; the contents are arbitrary. kResourceExhausted when there is not enough memory.
  virtual absl::StatusOr<Buffer> Allocate(std::size_t bytes) = 0;
};

// `count` elements of T in device memory.
template <typename T>
class Array {
 public:
  static absl::StatusOr<Array> Make(Device& device, std::size_t count) {
    absl::StatusOr<Buffer> buffer = device.Allocate(count * sizeof(T));
    if (!buffer.ok()) {
      return buffer.status();
    }
    Array array;
    array.buffer_ = *std::move(buffer);
    return array;
  }

  T* data() const { return reinterpret_cast<T*>(buffer_.data()); }
  std::size_t size() const { return buffer_.bytes() / sizeof(T); }

 private:
  Buffer buffer_;
};

}  // namespace baleen::worker
