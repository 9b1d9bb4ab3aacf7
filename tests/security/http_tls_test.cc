// The OpenSSL context of the HTTP port: versions, protocols, and new certificates.
#include "security/http_tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/x509.h>

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "observability/base/clock.h"
#include "security/certificates/openssl.h"
#include "tests/fakes/fake_certificates.h"

namespace baleen::security {
namespace {

using SslPointer = std::unique_ptr<SSL, Freer<SSL_free>>;

class Restless final : public Clock {
 public:
  absl::Duration Monotonic() const override {
    steps_.Advance(absl::Seconds(2));
    return steps_.Monotonic();
  }
  absl::Time Wall() const override { return SystemClock().Wall(); }

 private:
  mutable ManualClock steps_;
};

// Two ends of a connection in memory.
struct Pair {
  explicit Pair(
      SSL_CTX& server_context, const std::function<void(SSL&)>& change = [](SSL&) {})
      : client_context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free),
        server(SSL_new(&server_context)),
        client(SSL_new(client_context.get())) {
    BIO* near = nullptr;
    BIO* far = nullptr;
    BIO_new_bio_pair(&near, 0, &far, 0);
    SSL_set_bio(server.get(), near, near);
    SSL_set_bio(client.get(), far, far);
    SSL_set_accept_state(server.get());
    SSL_set_connect_state(client.get());
    change(*client);
  }

  bool Shake() {
    for (int i = 0; i < 20; ++i) {
      const bool client_done = SSL_do_handshake(client.get()) == 1;
      const bool server_done = SSL_do_handshake(server.get()) == 1;
      if (client_done && server_done) return true;
    }
    ERR_clear_error();
    return false;
  }

  bool Echo() {
    char back = 0;
    return SSL_write(server.get(), "x", 1) == 1 && SSL_read(client.get(), &back, 1) == 1 &&
           back == 'x';
  }

  std::string PeerName() const {
    std::array<char, 256> name{};
    const X509Pointer peer(SSL_get1_peer_certificate(client.get()));
    X509_NAME_get_text_by_NID(X509_get_subject_name(peer.get()), NID_commonName, name.data(),
                              name.size());
    return name.data();
  }

  std::shared_ptr<SSL_CTX> client_context;
  SslPointer server;
  SslPointer client;
};

class HttpTlsTest : public ::testing::Test {
 protected:
  HttpTlsTest() : files_(authority_.Issue("public", {})) {
    files_.authority.clear();
    tls_ = *HttpTls::Make(*CertificateStore::Open(files_, clock_));
  }

  const Restless clock_;
  fakes::FakeAuthority authority_{"authority"};
  CertificateFiles files_;
  std::unique_ptr<HttpTls> tls_;
};

TEST_F(HttpTlsTest, SpeaksTls12And13Only) {
  for (const int version : {TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION}) {
    Pair pair(*tls_->Context(), [version](SSL& client) {
      SSL_set_security_level(&client, 0);
      SSL_set_min_proto_version(&client, version);
      SSL_set_max_proto_version(&client, version);
    });
    EXPECT_EQ(pair.Shake(), version >= TLS1_2_VERSION) << version;
  }
}

TEST_F(HttpTlsTest, SpeaksHttp11Only) {
  const auto with = [](const std::string& list) {
    return [list](SSL& client) {
      SSL_set_alpn_protos(&client, reinterpret_cast<const unsigned char*>(list.data()),
                          static_cast<unsigned int>(list.size()));
    };
  };
  EXPECT_TRUE(Pair(*tls_->Context()).Shake()) << "a client need not say";
  EXPECT_TRUE(Pair(*tls_->Context(), with("\x02h2\x08http/1.1")).Shake());
  EXPECT_FALSE(Pair(*tls_->Context(), with("\x02h2")).Shake());
}

TEST_F(HttpTlsTest, NewCertificatesServeNewConnectionsWhileOldOnesLive) {
  EXPECT_EQ(tls_->Context(), tls_->Context()) << "one context for as long as nothing changes";
  Pair old(*tls_->Context());
  ASSERT_TRUE(old.Shake());
  const auto next = authority_.Issue("next", {});
  fakes::WriteFile(files_.certificate, fakes::ReadFile(next.certificate));
  Pair half(*tls_->Context());
  ASSERT_TRUE(half.Shake()) << "half of a new pair is not used";
  EXPECT_EQ(half.PeerName(), "public");
  fakes::WriteFile(files_.key, fakes::ReadFile(next.key));
  Pair fresh(*tls_->Context());
  ASSERT_TRUE(fresh.Shake());
  EXPECT_EQ(fresh.PeerName(), "next");
  EXPECT_TRUE(fresh.Echo());
  EXPECT_TRUE(old.Echo());
}

}  // namespace
}  // namespace baleen::security
