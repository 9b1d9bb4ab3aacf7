#include "security/http_tls.h"

#include <openssl/pem.h>

#include <fmt/format.h>

#include <array>
#include <utility>

#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "security/certificates/openssl.h"

namespace baleen::security {
namespace {

// Of TLS 1.2; those of 1.3 are all good.
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr std::array<unsigned char, 9> kProtocol = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

absl::Status Refused(std::string_view what) {
  return absl::FailedPreconditionError(
      fmt::format("OpenSSL does not take the {}: {}", what, TakeOpensslError()));
}

absl::Status UseChain(const std::string& pem, SSL_CTX& context) {
  const BioPointer from = ReadFrom(pem);
  const X509Pointer leaf(PEM_read_bio_X509(from.get(), nullptr, nullptr, nullptr));
  if (leaf == nullptr || SSL_CTX_use_certificate(&context, leaf.get()) != 1) {
    return Refused("certificate");
  }
  while (X509Pointer next{PEM_read_bio_X509(from.get(), nullptr, nullptr, nullptr)}) {
    if (SSL_CTX_add1_chain_cert(&context, next.get()) != 1) return Refused("chain");
  }
  ERR_clear_error();  // the end of the text
  return absl::OkStatus();
}

absl::Status UseKey(const std::string& pem, SSL_CTX& context) {
  const BioPointer from = ReadFrom(pem);
  const KeyPointer key(PEM_read_bio_PrivateKey(from.get(), nullptr, nullptr, nullptr));
  if (key == nullptr || SSL_CTX_use_PrivateKey(&context, key.get()) != 1) return Refused("key");
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<SSL_CTX>> MakeContext(const Certificates& certificates) {
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return Refused("request for a context");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                         SSL_OP_CIPHER_SERVER_PREFERENCE);
  // Written in parts, from buffers that may have moved: as asynchronous writers need it. Buffers of
  // an idle connection go back.
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE |
                                      SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                      SSL_MODE_RELEASE_BUFFERS);
  if (SSL_CTX_set_cipher_list(context.get(), kCiphers) != 1) return Refused("ciphers");
  // A client that speaks no HTTP/1.1 says so in its list; one without a list is served.
  const auto choose = [](SSL*, const unsigned char** chosen, unsigned char* chosen_bytes,
                         const unsigned char* offered, unsigned int offered_bytes, void*) {
    unsigned char* found = nullptr;
    const int result = SSL_select_next_proto(&found, chosen_bytes, kProtocol.data(),
                                             kProtocol.size(), offered, offered_bytes);
    if (result != OPENSSL_NPN_NEGOTIATED) return SSL_TLSEXT_ERR_ALERT_FATAL;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
  };
  SSL_CTX_set_alpn_select_cb(context.get(), choose, nullptr);
  BALEEN_RETURN_IF_ERROR(UseChain(certificates.pem.certificate, *context));
  BALEEN_RETURN_IF_ERROR(UseKey(certificates.pem.key, *context));
  return context;
}

}  // namespace

HttpTls::HttpTls(std::shared_ptr<CertificateStore> store) : store_(std::move(store)) {}

absl::StatusOr<std::unique_ptr<HttpTls>> HttpTls::Make(std::shared_ptr<CertificateStore> store) {
  std::unique_ptr<HttpTls> self(new HttpTls(std::move(store)));
  self->made_from_ = self->store_->Current();
  BALEEN_ASSIGN_OR_RETURN(self->context_, MakeContext(*self->made_from_));
  return self;
}

std::shared_ptr<SSL_CTX> HttpTls::Context() {
  const std::shared_ptr<const Certificates> current = store_->Current();
  const std::lock_guard lock(mutex_);
  if (current == made_from_) return context_;
  made_from_ = current;
  absl::StatusOr<std::shared_ptr<SSL_CTX>> made = MakeContext(*current);
  if (made.ok()) {
    context_ = *std::move(made);
  } else {
    log::Error("the new certificate can not be used, the old one stays",
               {{"reason", std::string(made.status().message())}});
  }
  return context_;
}

}  // namespace baleen::security
