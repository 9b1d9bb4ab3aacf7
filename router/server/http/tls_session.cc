#include "router/server/http/tls_session.h"

#include <openssl/bio.h>
#include <openssl/err.h>

#include <algorithm>
#include <array>

#include "observability/base/check.h"

namespace baleen::router::http {
namespace {

constexpr std::size_t kPieceBytes = 16 * 1024;  // of a TLS record

}  // namespace

TlsSession::TlsSession(SSL_CTX* context) : session_(SSL_new(context)) {
  BIO* input = BIO_new(BIO_s_mem());
  BIO* output = BIO_new(BIO_s_mem());
  BALEEN_CHECK(session_ != nullptr && input != nullptr && output != nullptr, "out of memory");
  SSL_set_bio(session_.get(), input, output);
  SSL_set_accept_state(session_.get());
  // Idle connections give their record buffers back.
  SSL_set_mode(session_.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
}

bool TlsSession::Decrypt(std::string_view cipher, std::string* plain) {
  ERR_clear_error();
  if (BIO_write(SSL_get_rbio(session_.get()), cipher.data(), static_cast<int>(cipher.size())) !=
      static_cast<int>(cipher.size())) {
    return false;
  }
  std::array<char, kPieceBytes> piece;
  while (true) {
    const int read = SSL_read(session_.get(), piece.data(), static_cast<int>(piece.size()));
    if (read > 0) {
      plain->append(piece.data(), static_cast<std::size_t>(read));
      continue;
    }
    return SSL_get_error(session_.get(), read) == SSL_ERROR_WANT_READ;
  }
}

bool TlsSession::Encrypt(std::string_view plain) {
  ERR_clear_error();
  while (!plain.empty()) {
    const int piece = static_cast<int>(std::min(plain.size(), kPieceBytes));
    const int written = SSL_write(session_.get(), plain.data(), piece);
    if (written <= 0) return false;
    plain.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

void TlsSession::TakeOutput(std::string* out) {
  BIO* output = SSL_get_wbio(session_.get());
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(output, &bytes);
  if (size <= 0) return;
  out->append(bytes, static_cast<std::size_t>(size));
  BIO_reset(output);
}

}  // namespace baleen::router::http
