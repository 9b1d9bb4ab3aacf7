// Content hashes of KV blocks: equal chains of tokens under an equal key have equal hashes, on both
// sides of the wire.
//
// hash[0] = HMAC-SHA256(key, "baleen.block.1" | model digest | tokens of block 0)
// hash[i] = HMAC-SHA256(key, hash[i-1] | tokens of block i), each cut to 128 bits, tokens as
// little-endian int32. The key is the tenant's salt: tenants can neither guess nor probe each
// other's blocks.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace baleen::contract {

struct BlockHash {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const BlockHash&) const = default;
};

struct BlockHashKey {
  std::string_view tenant_salt;   // any length, secret
  std::string_view model_digest;  // as in ModelIdentity
};

// One hash for each whole block (64 tokens) of `tokens`; a partial last block has none.
std::vector<BlockHash> HashBlocks(const BlockHashKey& key, std::span<const std::int32_t> tokens);

}  // namespace baleen::contract
