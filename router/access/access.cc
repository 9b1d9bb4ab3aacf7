#include "router/access/access.h"

#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::router {

absl::StatusOr<std::unique_ptr<Access>> Access::Open(const AccessOptions& options,
                                                     const Clock& clock) {
  auto keys = std::make_unique<KeyStore>();
  if (!options.api_keys_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(keys, KeyStore::Open(options.api_keys_file, clock));
  }
  TenantSalts salts;
  if (!options.cache_secret_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(salts, TenantSalts::FromFile(options.cache_secret_file));
  }
  return std::unique_ptr<Access>(
      new Access{.keys = std::move(keys), .salts = std::move(salts), .budget = TokenBudget(clock)});
}

}  // namespace baleen::router
