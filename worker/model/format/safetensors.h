// The header of a safetensors file: bytes in, checked tensor table out. No file access here.
//
// Format: 8 bytes little-endian header length N, N bytes JSON {"name": {"dtype", "shape",
// "data_offsets": [begin, end]}, ...,
// "__metadata__": {string: string}}, then the data. Everything that the reference implementation
// demands is demanded: the tensors tile the data from its first to its last byte without a hole or
// an overlap, and shape times element size is the length of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace baleen::worker {

enum class DType : std::uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64
};

std::size_t DTypeBytes(DType dtype);
std::string_view DTypeName(DType dtype);  // as the file spells it, for example "BF16"

struct TensorEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::uint64_t>
      shape;                // outermost first; a dimension may be 0; no dimensions = a scalar
  std::uint64_t begin = 0;  // byte range in the file (not in the data section)
  std::uint64_t end = 0;
};

inline constexpr std::uint64_t kHeaderBytesMax =
    100'000'000;  // the reference implementation's limit
inline constexpr std::size_t kTensorsMax =
    1'000'000;  // in a file; the largest served models have 150,000 in all files together
inline constexpr std::size_t kTensorNameBytesMax = 512;
inline constexpr std::size_t kTensorRankMax = 8;

// Parses the start of a file of `file_bytes` bytes. `head` begins at the file's first byte and
// holds at least the whole header, or the whole file. Entries come back in the order of their bytes
// in the file. Errors are kInvalidArgument and name the tensor and the limit.
absl::StatusOr<std::vector<TensorEntry>> ParseSafetensorsHeader(std::span<const std::byte> head,
                                                                std::uint64_t file_bytes);

}  // namespace baleen::worker
