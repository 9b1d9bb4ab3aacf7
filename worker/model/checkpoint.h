// The weights of a model directory: model.safetensors, or the shards of
// model.safetensors.index.json, mapped read-only.
//
// Opening checks every header, and that the index and the shards agree. It reads no weights: pages
// come in when they are touched, so a rank reads only its own share. Who has read a tensor releases
// it, so that memory holds what was made of it and not both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/format/safetensors.h"

namespace baleen::worker {

// A tensor inside the mapping; lives as long as its Checkpoint. `data` holds shape x dtype bytes in
// row-major order, little-endian, and need not be aligned to the element: copy elements out with
// memcpy.
struct TensorView {
  DType dtype = DType::kF32;
  std::span<const std::uint64_t> shape;
  std::span<const std::byte> data;
};

inline constexpr std::size_t kIndexBytesMax =
    64u << 20;  // model.safetensors.index.json; Kimi-K2's has 14 MB
inline constexpr std::size_t kShardsMax = 4096;

// Immutable once open: safe to read from any thread. The files must not be truncated meanwhile:
// touching a page that is gone is a SIGBUS.
class Checkpoint {
 public:
  // kNotFound: no such directory, or no weights in it. kInvalidArgument: malformed files; the
  // message names file, tensor and limit.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& directory);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  bool Has(std::string_view name) const;

  // The tensor `name`. It must have one of `dtypes` (empty = any) and exactly `shape`. kNotFound:
  // the checkpoint has no such tensor; kInvalidArgument: other dtype or shape than the config asks
  // for; the message says both.
  absl::StatusOr<TensorView> Get(std::string_view name, std::initializer_list<DType> dtypes,
                                 std::initializer_list<std::uint64_t> shape) const;

  // The tensor `name` as it is. kNotFound: the checkpoint has no such tensor.
  absl::StatusOr<TensorView> Get(std::string_view name) const;

  // Gives the pages of the tensor `name` back to the system, if there is one; reading it brings
  // them in again.
  void Release(std::string_view name) const;

  // All tensor names, ascending.
  std::span<const std::string> names() const;
  // Size of all weight files together.
  std::uint64_t bytes() const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  friend absl::StatusOr<std::string> CheckpointDigest(const std::string& directory,
                                                      const Checkpoint& checkpoint);
  std::unique_ptr<State> state_;
};

// Identity of config and weights: 64 hexadecimal digits of SHA-256 (ModelInfo::digest). Covers
// config.json and generation_config.json byte for byte, and for each weight file, in name order,
// its name, its size and its whole header; then its data: all of it in a file of up to
// kDigestWholeFileBytesMax, else kDigestSampleBytes from the middle of every tensor (370 MB for
// DeepSeek-R1 instead of 671 GB). So it tells any two checkpoints apart that were trained or
// quantised differently. It is no proof against somebody who edits single weights of a large file
// on purpose: it is a fence against mixing models up, not a signature.
absl::StatusOr<std::string> CheckpointDigest(const std::string& directory,
                                             const Checkpoint& checkpoint);

inline constexpr std::uint64_t kDigestWholeFileBytesMax = 64u << 20;
inline constexpr std::uint64_t kDigestSampleBytes = 4096;

}  // namespace baleen::worker
