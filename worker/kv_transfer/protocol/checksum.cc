#include "worker/kv_transfer/protocol/checksum.h"

#include <array>

// The dispatching entry points choose the widest vectors of this processor; the values are the
// same.
#if defined(__x86_64__)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

namespace baleen::worker {

std::uint64_t Checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t CombinedChecksum(contract::TransferId id,
                               std::span<const std::uint64_t> block_checksums,
                               std::string_view manifest) {
  // A hash of hashes: each part has a fixed size, so no two inputs look alike.
  const std::array<std::uint64_t, 4> parts = {
      id.value, block_checksums.size(), Checksum(std::as_bytes(block_checksums)),
      Checksum(std::as_bytes(std::span(manifest.data(), manifest.size())))};
  return Checksum(std::as_bytes(std::span(parts)));
}

}  // namespace baleen::worker
