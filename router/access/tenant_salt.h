// What keeps tenants out of each other's prefix cache: hashes of KV blocks are keyed with a salt
// that is the tenant's, and that nobody can compute without the router's secret.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baleen::router {

// Routers that share a secret share the prefix cache of their workers.
class TenantSalts {
 public:
  // A random secret of this process.
  TenantSalts();
  // The content of a file: 16 to 4096 bytes. NOT_FOUND or INVALID_ARGUMENT names it and the limit.
  static absl::StatusOr<TenantSalts> FromFile(const std::string& path);

  // HMAC-SHA256(secret, "baleen.tenant.1" | tenant): 32 bytes, as contract::BlockHashKey takes it.
  std::string Of(std::string_view tenant) const;

 private:
  explicit TenantSalts(std::string secret) : secret_(std::move(secret)) {}
  std::string secret_;
};

}  // namespace baleen::router
