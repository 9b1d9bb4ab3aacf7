// One tensor of a checkpoint at a time: checked, converted and put into device memory.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/include/weight.h"
#include "worker/device/device.h"
#include "worker/model/checkpoint.h"

namespace baleen::worker {

// Where tensors come from and go to. What it refers to outlives it.
struct TensorSource {
  const Checkpoint& checkpoint;
  Device& device;
  bool fp8_weights = false;  // the config announces FP8 weights; else an FP8 tensor is an error
  // Called with the size of every tensor that was read, when it has been. May be empty.
  std::function<void(std::uint64_t bytes)> on_read;
};

// Errors name the tensor. Buffers end up in `storage`; what is returned points into them. A tensor
// gives its pages back when the next one is asked for, the last one when the binder goes.
class TensorBinder {
 public:
  // kCheck: tensors are checked, and nothing is read or stored.
  enum class Mode { kLoad, kCheck };

  TensorBinder(const TensorSource& source, std::vector<Buffer>& storage, Mode mode)
      : source_(source), storage_(storage), mode_(mode) {}
  ~TensorBinder() { ReleaseLast(); }
  TensorBinder(const TensorBinder&) = delete;
  TensorBinder& operator=(const TensorBinder&) = delete;

  // A GEMM weight [n, k] as it is in the checkpoint: bf16, FP8 with its scales, or fp32 / fp16
  // rounded to bf16. Valid until the next call.
  absl::StatusOr<kernels::WeightSource> Source(const std::string& name, std::uint64_t n,
                                               std::uint64_t k);
  // Any part of a source, packed for the device.
  absl::StatusOr<kernels::PackedWeight> Pack(const kernels::WeightSource& source);
  // Source and Pack of a whole weight.
  absl::StatusOr<kernels::PackedWeight> Linear(const std::string& name, std::uint64_t n,
                                               std::uint64_t k);
  // The gate's weight, kept in fp32.
  absl::StatusOr<kernels::PackedWeight> Gate(const std::string& name, std::uint64_t n,
                                             std::uint64_t k);
  // A vector as fp32.
  absl::StatusOr<const float*> Vector(const std::string& name, std::uint64_t size);
  // A table [rows, columns] as it is if bf16, else as fp32; `format` says which.
  absl::StatusOr<const void*> Table(const std::string& name, std::uint64_t rows,
                                    std::uint64_t columns, kernels::WeightFormat& format);

  // Whether the tensor was asked for.
  bool used(const std::string& name) const { return used_.contains(name); }

  // Size in the checkpoint of all tensors that were asked for.
  std::uint64_t bytes() const { return bytes_; }

  // Whether any GEMM weight was rounded to bf16.
  bool rounded() const { return rounded_; }

 private:
  absl::StatusOr<TensorView> Fetch(const std::string& name, std::initializer_list<DType> dtypes,
                                   std::initializer_list<std::uint64_t> shape);
  absl::StatusOr<std::byte*> Store(std::size_t bytes);
  void ReleaseLast();

  const TensorSource& source_;
  std::vector<Buffer>& storage_;
  const Mode mode_;
  bool rounded_ = false;
  std::uint64_t bytes_ = 0;
  std::vector<std::string> last_;  // the tensors of the last call; kLoad only
  std::unordered_set<std::string> used_;
  std::vector<std::uint16_t> converted_;  // of the last Source
};

}  // namespace baleen::worker
