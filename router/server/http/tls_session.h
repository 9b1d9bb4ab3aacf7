// TLS of one connection, over memory: bytes of the network in, bytes of the request out, and the
// other way round. The connection keeps the sockets, so that both kinds read and write alike.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>

namespace baleen::router::http {

class TlsSession {
 public:
  // Server side. `context` is borrowed by OpenSSL, which counts references.
  explicit TlsSession(SSL_CTX* context);

  // Appends to `plain` what `cipher`, from the client, says. False: the handshake failed, or the
  // stream is damaged or closed. What is to be sent to the client, also then: TakeOutput.
  bool Decrypt(std::string_view cipher, std::string* plain);

  // Precondition: the client has sent something that Decrypt took for plain text, so the handshake
  // is done. False: the session can not be written to.
  bool Encrypt(std::string_view plain);

  // Appends to `out` what is to be sent to the client.
  void TakeOutput(std::string* out);

 private:
  struct Free {
    void operator()(SSL* session) const { SSL_free(session); }
  };
  std::unique_ptr<SSL, Free> session_;
};

}  // namespace baleen::router::http
