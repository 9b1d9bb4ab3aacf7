#include "security/grpc/channel_credentials.h"

#include <fmt/format.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/status_macros.h"
#include "security/files/small_file.h"

namespace baleen::security {
namespace {

// gRPC has verified the chain already.
class RoleVerifier final : public grpc::experimental::ExternalCertificateVerifier {
 public:
  RoleVerifier(absl::StatusOr<Identity> own, Role server) : own_(std::move(own)), server_(server) {}

  bool Verify(grpc::experimental::TlsCustomVerificationCheckRequest* request,
              std::function<void(grpc::Status)>, grpc::Status* status) override {
    const absl::Status checked = Check(*request);
    if (!checked.ok()) {
      *status = grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                             fmt::format("the server is not a {} of this cluster: {}",
                                         NameOf(server_), std::string(checked.message())));
    }
    return true;  // it is done
  }

  void Cancel(grpc::experimental::TlsCustomVerificationCheckRequest*) override {}

 private:
  absl::Status Check(const grpc::experimental::TlsCustomVerificationCheckRequest& request) const {
    std::vector<std::string> uris;
    for (const grpc::string_ref& uri : request.uri_names())
      uris.emplace_back(uri.data(), uri.size());
    BALEEN_RETURN_IF_ERROR(own_.status());
    BALEEN_ASSIGN_OR_RETURN(const Identity peer, IdentityOf(uris));
    return CheckPeer(*own_, peer, server_);
  }

  const absl::StatusOr<Identity> own_;
  const Role server_;
};

}  // namespace

absl::StatusOr<Identity> OwnIdentity(const Certificates& own, Role role) {
  absl::StatusOr<Identity> identity = IdentityOf(own.uris);
  if (!identity.ok()) {
    return absl::InvalidArgumentError(fmt::format("our own certificate ({}): {}", own.subject,
                                                  std::string(identity.status().message())));
  }
  if (identity->role != role) {
    return absl::InvalidArgumentError(
        fmt::format("our own certificate ({}) is of a {}, this is a {}", own.subject,
                    NameOf(identity->role), NameOf(role)));
  }
  return identity;
}

std::shared_ptr<grpc::ChannelCredentials> MakeInternalChannelCredentials(
    const std::shared_ptr<CertificateStore>& certificates, Role server) {
  if (certificates == nullptr) return grpc::InsecureChannelCredentials();
  const std::shared_ptr<const Certificates> own = certificates->Current();
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::StaticDataCertificateProvider>(
          own->pem.authority,
          std::vector<grpc::experimental::IdentityKeyCertPair>{
              {.private_key = own->pem.key, .certificate_chain = own->pem.certificate}}));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_certificate_verifier(
      grpc::experimental::ExternalCertificateVerifier::Create<RoleVerifier>(IdentityOf(own->uris),
                                                                            server));
  options.set_check_call_host(false);
  return grpc::experimental::TlsCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeClientChannelCredentials(
    const std::string& authority_file) {
  grpc::SslCredentialsOptions options;
  if (!authority_file.empty()) {
    BALEEN_ASSIGN_OR_RETURN(SmallFile file, ReadSmallFile(authority_file, kPemFileBytesMax));
    options.pem_root_certs = std::move(file.text);
  }
  return grpc::SslCredentials(options);
}

}  // namespace baleen::security
