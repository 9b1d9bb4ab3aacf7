#include "security/grpc/server_credentials.h"

#include <fmt/format.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/grpc_security_constants.h>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "security/grpc/channel_credentials.h"

namespace baleen::security {
namespace {

// gRPC's C++ layer can neither exchange certificates that we have checked nor put a processor
// before the calls of a plaintext port; its C layer, which is as public, does both.

std::string_view ViewOf(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// What gRPC calls back with. Destroyed by it with the credentials.
struct Gate {
  PortRules rules;
  bool peers_have_certificates = false;
  std::shared_ptr<CertificateStore> certificates;
  std::shared_ptr<const Certificates> given;  // to gRPC, last
};

// Called for every handshake, one at a time.
grpc_ssl_certificate_config_reload_status FetchCertificates(
    void* state, grpc_ssl_server_certificate_config** config) {
  Gate& gate = *static_cast<Gate*>(state);
  const std::shared_ptr<const Certificates> current = gate.certificates->Current();
  if (current == gate.given) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const PemTexts& pem = current->pem;
  const grpc_ssl_pem_key_cert_pair pair = {.private_key = pem.key.c_str(),
                                           .cert_chain = pem.certificate.c_str()};
  // gRPC insists on some; where it asks peers for no certificate it has no use for them.
  const std::string& authority = gate.peers_have_certificates ? pem.authority : pem.certificate;
  *config = grpc_ssl_server_certificate_config_create(authority.c_str(), &pair, 1);
  gate.given = current;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

std::vector<std::string> UrisOf(const grpc_auth_context& peer) {
  std::vector<std::string> uris;
  grpc_auth_property_iterator at =
      grpc_auth_context_find_properties_by_name(&peer, GRPC_PEER_URI_PROPERTY_NAME);
  while (const grpc_auth_property* property = grpc_auth_property_iterator_next(&at)) {
    uris.emplace_back(property->value, property->value_length);
  }
  return uris;
}

absl::Status CheckCall(const Gate& gate, const grpc_auth_context& peer,
                       std::span<const grpc_metadata> metadata) {
  CallFacts call;
  int authorizations = 0;
  for (const grpc_metadata& entry : metadata) {
    const std::string_view key = ViewOf(entry.key);
    if (key == ":path") call.path = ViewOf(entry.value);
    if (key != "authorization") continue;
    call.authorization = ViewOf(entry.value);
    ++authorizations;
  }
  // Of two keys, one part of the program might check the first and another use the second.
  if (authorizations > 1) {
    return contract::MakeStatus(contract::Reason::kUnauthenticated,
                                "'authorization' is there twice");
  }
  std::optional<absl::StatusOr<Identity>> identity;
  if (gate.peers_have_certificates) {  // and the handshake has verified them
    identity = IdentityOf(UrisOf(peer));
    call.peer = &*identity;
  }
  return Authorize(gate.rules, call);
}

void DestroyGate(void* state) { delete static_cast<Gate*>(state); }

grpc_server_credentials* MakeTls(Gate& gate) {
  const auto request = gate.peers_have_certificates
                           ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                           : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE;
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(request, FetchCertificates,
                                                                      &gate));
}

class Credentials final : public grpc::ServerCredentials {
 public:
  explicit Credentials(std::unique_ptr<Gate> gate)
      : credentials_(gate->certificates == nullptr ? grpc_insecure_server_credentials_create()
                                                   : MakeTls(*gate)) {
    // Before the message of a call is read, on gRPC's thread.
    const auto process = [](void* state, grpc_auth_context* peer, const grpc_metadata* metadata,
                            std::size_t count, grpc_process_auth_metadata_done_cb done,
                            void* user_data) {
      const absl::Status status =
          CheckCall(*static_cast<const Gate*>(state), *peer, std::span(metadata, count));
      const std::string message(status.message());
      // The key stays in the metadata: whoever serves the call asks whose it is.
      done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
           message.c_str());
    };
    grpc_server_credentials_set_auth_metadata_processor(
        credentials_, {.process = process, .destroy = DestroyGate, .state = gate.release()});
  }
  ~Credentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    BALEEN_CHECK(false, "the gate is the only processor");
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* const credentials_;
};

Role RoleOf(Port port) { return port == Port::kGroupLeader ? Role::kWorker : Role::kRouter; }

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const ServerSecurity& security) {
  auto gate = std::make_unique<Gate>();
  gate->rules.port = security.port;
  gate->rules.check_key = security.check_key;
  gate->certificates = security.certificates;
  if (security.certificates != nullptr) {
    const std::shared_ptr<const Certificates> own = security.certificates->Current();
    gate->peers_have_certificates = !own->pem.authority.empty();
    if (gate->peers_have_certificates) {
      BALEEN_ASSIGN_OR_RETURN(Identity identity, OwnIdentity(*own, RoleOf(security.port)));
      gate->rules.own = std::move(identity);
    }
  }
  return std::make_shared<Credentials>(std::move(gate));
}

}  // namespace baleen::security
