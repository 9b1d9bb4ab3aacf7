// What a gRPC client dials with.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "security/authorization/identity.h"
#include "security/certificates/certificate_store.h"

namespace baleen::security {

// The role that certificates of the cluster's inside say. INVALID_ARGUMENT: none, or not `role`.
absl::StatusOr<Identity> OwnIdentity(const Certificates& own, Role role);

// Inside the cluster: we present our certificate, and the server must have one of the same
// authority and trust domain, and of role `server`. Its host name does not matter: peers are
// dialled by address. With the certificates as they are now: make new ones for a new channel. Null
// certificates: plaintext.
std::shared_ptr<grpc::ChannelCredentials> MakeInternalChannelCredentials(
    const std::shared_ptr<CertificateStore>& certificates, Role server);

// A client of the public port: the server must have a certificate for the host that is dialled, of
// an authority in the PEM file (empty: of the system's).
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientChannelCredentials(
    const std::string& authority_file);

}  // namespace baleen::security
