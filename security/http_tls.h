// TLS of the HTTP port: an OpenSSL context for each new connection, from files that may change
// while we run.
//
// For Boost.Asio: `asio::ssl::context` takes a native handle, and its ownership, so give it a
// reference of its own (SSL_CTX_up_ref). One context serves any number of connections; those that
// run keep theirs when the files change.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "security/certificates/certificate_store.h"

namespace baleen::security {

// TLS 1.2 and 1.3, server side, ALPN "http/1.1", no renegotiation, no compression, forward secret
// ciphers only. Thread-safe.
class HttpTls {
 public:
  // Shares the store with the gRPC port. FAILED_PRECONDITION when OpenSSL does not take them.
  static absl::StatusOr<std::unique_ptr<HttpTls>> Make(std::shared_ptr<CertificateStore> store);

  // The context of a connection that is being accepted. Never null: when new files can not be used
  // it is the last one that could.
  std::shared_ptr<SSL_CTX> Context();

 private:
  explicit HttpTls(std::shared_ptr<CertificateStore> store);

  const std::shared_ptr<CertificateStore> store_;
  std::mutex mutex_;
  // Guarded by mutex_:
  std::shared_ptr<const Certificates> made_from_;
  std::shared_ptr<SSL_CTX> context_;
};

}  // namespace baleen::security
