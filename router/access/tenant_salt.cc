#include "router/access/tenant_salt.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <array>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "security/files/small_file.h"

namespace baleen::router {
namespace {

constexpr std::string_view kDomain = "baleen.tenant.1";
constexpr std::size_t kSecretBytesMin = 16;
constexpr std::size_t kSecretBytesMax = 4096;
constexpr std::size_t kSaltBytes = 32;

}  // namespace

TenantSalts::TenantSalts() : secret_(kSaltBytes, '\0') {
  auto* const bytes = reinterpret_cast<unsigned char*>(secret_.data());
  BALEEN_CHECK(RAND_bytes(bytes, static_cast<int>(secret_.size())) == 1,
               "the system has random numbers");
}

absl::StatusOr<TenantSalts> TenantSalts::FromFile(const std::string& path) {
  BALEEN_ASSIGN_OR_RETURN(security::SmallFile file, security::ReadSmallFile(path, kSecretBytesMax));
  if (file.text.size() < kSecretBytesMin) {
    return absl::InvalidArgumentError(fmt::format("the cache secret {} has {} bytes, not {} to {}",
                                                  path, file.text.size(), kSecretBytesMin,
                                                  kSecretBytesMax));
  }
  if (security::ReadableByOthers(file.signature)) {
    log::Warning("the cache secret can be read by every user of this machine", {{"file", path}});
  }
  return TenantSalts(std::move(file.text));
}

std::string TenantSalts::Of(std::string_view tenant) const {
  std::string message(kDomain);
  message += tenant;
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  const auto* ok = HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
                        reinterpret_cast<const unsigned char*>(message.data()), message.size(),
                        digest.data(), &length);
  BALEEN_CHECK(ok != nullptr && length == kSaltBytes, "HMAC-SHA256 is always available");
  return {digest.begin(), digest.begin() + length};
}

}  // namespace baleen::router
