// What a gRPC server listens with: TLS or plaintext, and in either case the authorization table in
// front of every call.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "security/authorization/authorization.h"
#include "security/certificates/certificate_store.h"

namespace baleen::security {

struct ServerSecurity {
  Port port = Port::kClients;
  // Null: plaintext. With an authority in it, peers need certificates of that authority, and roles
  // are checked: the port is of the cluster's inside.
  std::shared_ptr<CertificateStore> certificates;
  // Of API keys, any thread, must not block; null: there are none.
  std::function<absl::Status(std::string_view authorization)> check_key;
};

// For one call of AddListeningPort. New connections get the certificates as they are then. A call
// is checked before its message is read, by Authorize. INVALID_ARGUMENT: certificates with an
// authority that say no role, or the wrong one for the port.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerSecurity& security);

}  // namespace baleen::security
