#include "proto/contract/block_hash.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <bit>

#include "observability/base/check.h"
#include "proto/contract/limits.h"

namespace baleen::contract {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token ids are hashed as they lie in memory");

constexpr std::string_view kDomain = "baleen.block.1";

void Append(std::vector<std::uint8_t>& out, const void* data, std::size_t bytes) {
  const auto* begin = static_cast<const std::uint8_t*>(data);
  out.insert(out.end(), begin, begin + bytes);
}

BlockHash Hmac(std::string_view key, std::span<const std::uint8_t> message) {
  std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  const auto* ok = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), message.data(),
                        message.size(), digest.data(), &length);
  BALEEN_CHECK(ok != nullptr && length == 32, "HMAC-SHA256 is always available");
  BlockHash hash;
  std::copy_n(digest.begin(), hash.bytes.size(), hash.bytes.begin());
  return hash;
}

}  // namespace

std::vector<BlockHash> HashBlocks(const BlockHashKey& key, std::span<const std::int32_t> tokens) {
  std::vector<BlockHash> hashes;
  hashes.reserve(tokens.size() / kBlockTokens);
  std::vector<std::uint8_t> message;
  for (std::size_t start = 0; start + kBlockTokens <= tokens.size(); start += kBlockTokens) {
    message.clear();
    if (hashes.empty()) {
      Append(message, kDomain.data(), kDomain.size());
      Append(message, key.model_digest.data(), key.model_digest.size());
    } else {
      Append(message, hashes.back().bytes.data(), hashes.back().bytes.size());
    }
    Append(message, tokens.data() + start, kBlockTokens * sizeof(std::int32_t));
    hashes.push_back(Hmac(key.tenant_salt, message));
  }
  return hashes;
}

}  // namespace baleen::contract
