// One tensor of a checkpoint at a time: checked, converted and put into device memory.
#include "worker/model/tensor_binder.h"

#include <bit>
#include <cstring>

#include "fmt/format.h"
#include "kernels/include/numeric_formats.h"
#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

using kernels::PackedWeight;
using kernels::WeightFormat;
using kernels::WeightSource;

template <typename T>
T ElementAt(const TensorView& tensor, std::size_t index) {
  T value;
  std::memcpy(&value, tensor.data.data() + index * sizeof(T), sizeof(T));
  return value;
}

// IEEE binary16, exact.
float HalfToFloat(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t rebiased = exponent == 0x1fu ? 0xffu : exponent + 127u - 15u;
  return std::bit_cast<float>(sign | rebiased << 23 | mantissa << 13);
}

float FloatAt(const TensorView& tensor, std::size_t index) {
  switch (tensor.dtype) {
    case DType::kBF16:
      return kernels::Bf16ToFloat(ElementAt<std::uint16_t>(tensor, index));
    case DType::kF16:
      return HalfToFloat(ElementAt<std::uint16_t>(tensor, index));
    default:
      return ElementAt<float>(tensor, index);
  }
}

constexpr std::uint64_t ScaleBlocks(std::uint64_t size) {
  return (size + kernels::kScaleBlock - 1) / kernels::kScaleBlock;
}

}  // namespace

absl::StatusOr<TensorView> TensorBinder::Fetch(const std::string& name,
                                               std::initializer_list<DType> dtypes,
                                               std::initializer_list<std::uint64_t> shape) {
  used_.insert(name);
  BALEEN_ASSIGN_OR_RETURN(const TensorView tensor, source_.checkpoint.Get(name, dtypes, shape));
  bytes_ += tensor.data.size();
  if (mode_ == Mode::kLoad) last_.push_back(name);
  return tensor;
}

void TensorBinder::ReleaseLast() {
  for (const std::string& name : last_) {
    source_.checkpoint.Release(name);
    if (source_.on_read) source_.on_read(source_.checkpoint.Get(name)->data.size());
  }
  last_.clear();
}

absl::StatusOr<std::byte*> TensorBinder::Store(std::size_t bytes) {
  BALEEN_ASSIGN_OR_RETURN(Buffer buffer, source_.device.Allocate(bytes));
  storage_.push_back(std::move(buffer));
  return storage_.back().data();
}

absl::StatusOr<WeightSource> TensorBinder::Source(const std::string& name, std::uint64_t n,
                                                  std::uint64_t k) {
  ReleaseLast();
  BALEEN_ASSIGN_OR_RETURN(
      const TensorView tensor,
      Fetch(name, {DType::kBF16, DType::kF8E4M3, DType::kF32, DType::kF16}, {n, k}));
  WeightSource source{.data = tensor.data.data(),
                      .columns = static_cast<std::int64_t>(k),
                      .row_count = static_cast<std::int64_t>(n)};
  if (tensor.dtype == DType::kF8E4M3) {
    if (!source_.fp8_weights) {
      return absl::InvalidArgumentError(fmt::format(
          "tensor {} is F8_E4M3, but config.json has no fp8 quantization_config", name));
    }
    BALEEN_ASSIGN_OR_RETURN(const TensorView scales, Fetch(name + "_scale_inv", {DType::kF32},
                                                           {ScaleBlocks(n), ScaleBlocks(k)}));
    source.format = WeightFormat::kFp8Block;
    source.scales = scales.data.data();
  } else if (tensor.dtype != DType::kBF16 && mode_ == Mode::kLoad) {
    rounded_ = true;
    converted_.resize(n * k);
    for (std::size_t i = 0; i < converted_.size(); ++i) {
      converted_[i] = kernels::FloatToBf16(FloatAt(tensor, i));
    }
    source.data = converted_.data();
  }
  return source;
}

absl::StatusOr<PackedWeight> TensorBinder::Pack(const WeightSource& source) {
  if (mode_ == Mode::kCheck) {
    return PackedWeight{.format = source.format, .n = source.n(), .k = source.k()};
  }
  BALEEN_ASSIGN_OR_RETURN(std::byte* const storage,
                          Store(source_.device.ops().packed_bytes(source)));
  return source_.device.ops().pack(source, storage);
}

absl::StatusOr<PackedWeight> TensorBinder::Linear(const std::string& name, std::uint64_t n,
                                                  std::uint64_t k) {
  BALEEN_ASSIGN_OR_RETURN(const WeightSource source, Source(name, n, k));
  return Pack(source);
}

absl::StatusOr<PackedWeight> TensorBinder::Gate(const std::string& name, std::uint64_t n,
                                                std::uint64_t k) {
  ReleaseLast();
  BALEEN_ASSIGN_OR_RETURN(const TensorView tensor,
                          Fetch(name, {DType::kBF16, DType::kF32, DType::kF16}, {n, k}));
  std::vector<float> values(mode_ == Mode::kLoad ? n * k : 0);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = FloatAt(tensor, i);
  }
  return Pack({.format = WeightFormat::kF32,
               .data = values.data(),
               .columns = static_cast<std::int64_t>(k),
               .row_count = static_cast<std::int64_t>(n)});
}

absl::StatusOr<const float*> TensorBinder::Vector(const std::string& name, std::uint64_t size) {
  ReleaseLast();
  BALEEN_ASSIGN_OR_RETURN(const TensorView tensor,
                          Fetch(name, {DType::kBF16, DType::kF32, DType::kF16}, {size}));
  if (mode_ == Mode::kCheck) {
    return nullptr;
  }
  BALEEN_ASSIGN_OR_RETURN(std::byte* const storage, Store(size * sizeof(float)));
  auto* values = reinterpret_cast<float*>(storage);
  for (std::size_t i = 0; i < size; ++i) {
    values[i] = FloatAt(tensor, i);
  }
  return values;
}

absl::StatusOr<const void*> TensorBinder::Table(const std::string& name, std::uint64_t rows,
                                                std::uint64_t columns, WeightFormat& format) {
  ReleaseLast();
  BALEEN_ASSIGN_OR_RETURN(const TensorView tensor,
                          Fetch(name, {DType::kBF16, DType::kF32, DType::kF16}, {rows, columns}));
  if (mode_ == Mode::kCheck) {
    return nullptr;
  }
  const std::size_t count = rows * columns;
  if (tensor.dtype == DType::kBF16) {
    format = WeightFormat::kBf16;
    BALEEN_ASSIGN_OR_RETURN(std::byte* const storage, Store(count * sizeof(std::uint16_t)));
    std::memcpy(storage, tensor.data.data(), count * sizeof(std::uint16_t));
    return storage;
  }
  format = WeightFormat::kF32;
  BALEEN_ASSIGN_OR_RETURN(std::byte* const storage, Store(count * sizeof(float)));
  for (std::size_t i = 0; i < count; ++i) {
    reinterpret_cast<float*>(storage)[i] = FloatAt(tensor, i);
  }
  return storage;
}

}  // namespace baleen::worker
