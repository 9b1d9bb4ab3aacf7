// All that the router knows of who may call and how much.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "router/access/key_store.h"
#include "router/access/tenant_salt.h"
#include "router/access/token_budget.h"

namespace baleen::router {

struct AccessOptions {
  std::string api_keys_file;      // empty: no keys, everybody may do everything
  std::string cache_secret_file;  // empty: a random secret of this process
};

struct Access {
  // Errors name the file. `clock` is borrowed.
  static absl::StatusOr<std::unique_ptr<Access>> Open(const AccessOptions& options,
                                                      const Clock& clock);

  std::unique_ptr<KeyStore> keys;  // not null
  TenantSalts salts;
  TokenBudget budget;
};

}  // namespace baleen::router
