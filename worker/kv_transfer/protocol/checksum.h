// The checksums of KV transfer: 64-bit xxHash3, which runs at memory speed. They catch damage, not
// forgery.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "proto/contract/ids.h"

namespace baleen::worker {

std::uint64_t Checksum(std::span<const std::byte> bytes);

// Over everything that the receiver must agree on: the transfer, each block in the order of its
// number, and the manifest.
std::uint64_t CombinedChecksum(contract::TransferId id,
                               std::span<const std::uint64_t> block_checksums,
                               std::string_view manifest);

}  // namespace baleen::worker
