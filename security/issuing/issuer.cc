#include "security/issuing/issuer.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include <array>
#include <utility>

#include "observability/base/check.h"
#include "observability/base/status_macros.h"
#include "security/certificates/openssl.h"

namespace baleen::security {
namespace {

constexpr std::size_t kCommonNameBytesMax = 64;  // of X.520
constexpr std::size_t kHostBytesMax = 253;
constexpr std::size_t kUriBytesMax = 2048;
constexpr long kVersion3 = 2;

// A call of OpenSSL that fails only without memory or by our own mistake.
void Must(bool done, const char* what) { BALEEN_CHECK(done, what); }

void SetName(const std::string& common_name, X509_NAME& name) {
  const auto* const text = reinterpret_cast<const unsigned char*>(common_name.data());
  Must(X509_NAME_add_entry_by_txt(&name, "CN", MBSTRING_UTF8, text,
                                  static_cast<int>(common_name.size()), -1, 0) == 1,
       "a name fits a certificate");
}

void SetRandomSerial(X509& certificate) {
  std::array<unsigned char, 16> random{};
  Must(RAND_bytes(random.data(), random.size()) == 1, "the system has random numbers");
  random[0] = (random[0] & 0x7f) | 0x40;  // positive, and of full length
  const std::unique_ptr<BIGNUM, Freer<BN_free>> number(
      BN_bin2bn(random.data(), random.size(), nullptr));
  Must(BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(&certificate)) != nullptr,
       "a serial number fits");
}

void AddExtension(int nid, const char* value, X509* issuer, X509& certificate) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, &certificate, nullptr, nullptr, 0);
  const std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>> extension(
      X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  Must(extension != nullptr && X509_add_ext(&certificate, extension.get(), -1) == 1,
       "a constant extension is well-formed");
}

// Not by OpenSSL's little language for extensions: a name with a comma would be two.
void AddName(int type, std::string_view bytes, GENERAL_NAMES& names) {
  GENERAL_NAME* const name = GENERAL_NAME_new();
  ASN1_STRING* const text = type == GEN_IPADD ? ASN1_OCTET_STRING_new() : ASN1_IA5STRING_new();
  Must(ASN1_STRING_set(text, bytes.data(), static_cast<int>(bytes.size())) == 1, "memory");
  GENERAL_NAME_set0_value(name, type, text);
  sk_GENERAL_NAME_push(&names, name);
}

void AddHost(const std::string& host, GENERAL_NAMES& names) {
  std::array<char, 16> address{};
  if (::inet_pton(AF_INET, host.c_str(), address.data()) == 1) {
    AddName(GEN_IPADD, {address.data(), 4}, names);
  } else if (::inet_pton(AF_INET6, host.c_str(), address.data()) == 1) {
    AddName(GEN_IPADD, {address.data(), 16}, names);
  } else {
    AddName(GEN_DNS, host, names);
  }
}

void AddNames(const CertificateTerms& terms, X509& certificate) {
  if (terms.hosts.empty() && terms.uris.empty()) return;
  const NamesPointer names(sk_GENERAL_NAME_new_null());
  for (const std::string& host : terms.hosts) AddHost(host, *names);
  for (const std::string& uri : terms.uris) AddName(GEN_URI, uri, *names);
  Must(X509_add1_ext_i2d(&certificate, NID_subject_alt_name, names.get(), 0, 0) == 1,
       "alternative names fit a certificate");
}

bool IsPrintableAscii(std::string_view text) {
  for (const char c : text) {
    if (c <= ' ' || c > '~') return false;
  }
  return !text.empty();
}

absl::Status CheckTerms(const CertificateTerms& terms) {
  if (terms.common_name.empty() || terms.common_name.size() > kCommonNameBytesMax) {
    return absl::InvalidArgumentError(fmt::format("a certificate's name has {} bytes, not 1 to {}",
                                                  terms.common_name.size(), kCommonNameBytesMax));
  }
  for (const std::string& host : terms.hosts) {
    if (IsPrintableAscii(host) && host.size() <= kHostBytesMax) continue;
    return absl::InvalidArgumentError(
        fmt::format("host '{}' is neither a DNS name nor an IP address", host));
  }
  for (const std::string& uri : terms.uris) {
    if (IsPrintableAscii(uri) && uri.size() <= kUriBytesMax) continue;
    return absl::InvalidArgumentError(fmt::format("'{}' is not a URI", uri));
  }
  if (terms.validity.until <= terms.validity.from) {
    return absl::InvalidArgumentError("a certificate ends before it begins");
  }
  return absl::OkStatus();
}

template <typename Write>
std::string ToPem(const Write& write) {
  const BioPointer out(BIO_new(BIO_s_mem()));
  Must(write(out.get()) == 1, "what was made can be written");
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(bytes)};
}

IssuedCertificate ToPem(X509& certificate, EVP_PKEY& key) {
  return {.certificate = ToPem([&](BIO* out) { return PEM_write_bio_X509(out, &certificate); }),
          .key = ToPem([&](BIO* out) {
            return PEM_write_bio_PrivateKey(out, &key, nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

}  // namespace

struct Issuer::Parsed {
  X509Pointer certificate;
  KeyPointer key;
};

namespace {

// Without extensions and signature.
X509Pointer Begin(const CertificateTerms& terms, EVP_PKEY& key) {
  X509Pointer certificate(X509_new());
  Must(X509_set_version(certificate.get(), kVersion3) == 1, "version 3");
  SetRandomSerial(*certificate);
  ASN1_TIME_set(X509_getm_notBefore(certificate.get()), absl::ToTimeT(terms.validity.from));
  ASN1_TIME_set(X509_getm_notAfter(certificate.get()), absl::ToTimeT(terms.validity.until));
  SetName(terms.common_name, *X509_get_subject_name(certificate.get()));
  Must(X509_set_pubkey(certificate.get(), &key) == 1, "a public key fits");
  return certificate;
}

void Sign(X509& certificate, EVP_PKEY& key) {
  Must(X509_sign(&certificate, &key, EVP_sha256()) > 0, "P-256 signs");
}

}  // namespace

Issuer::Issuer(IssuedCertificate own, std::unique_ptr<Parsed> parsed)
    : own_(std::move(own)), parsed_(std::move(parsed)) {}
Issuer::Issuer(Issuer&&) noexcept = default;
Issuer& Issuer::operator=(Issuer&&) noexcept = default;
Issuer::~Issuer() = default;

absl::StatusOr<Issuer> Issuer::Make(const std::string& common_name, const Validity& validity) {
  const CertificateTerms terms{.common_name = common_name, .validity = validity};
  BALEEN_RETURN_IF_ERROR(CheckTerms(terms));
  auto parsed = std::make_unique<Parsed>();
  parsed->key.reset(EVP_EC_gen("P-256"));
  Must(parsed->key != nullptr, "P-256 is always available");
  parsed->certificate = Begin(terms, *parsed->key);
  X509& own = *parsed->certificate;
  X509_set_issuer_name(&own, X509_get_subject_name(&own));
  AddExtension(NID_basic_constraints, "critical,CA:TRUE,pathlen:0", &own, own);
  AddExtension(NID_key_usage, "critical,keyCertSign,cRLSign", &own, own);
  AddExtension(NID_subject_key_identifier, "hash", &own, own);
  Sign(own, *parsed->key);
  IssuedCertificate pem = ToPem(own, *parsed->key);
  return Issuer(std::move(pem), std::move(parsed));
}

absl::StatusOr<IssuedCertificate> Issuer::Issue(const CertificateTerms& terms) const {
  BALEEN_RETURN_IF_ERROR(CheckTerms(terms));
  const KeyPointer key(EVP_EC_gen("P-256"));
  Must(key != nullptr, "P-256 is always available");
  const X509Pointer issued = Begin(terms, *key);
  X509* const issuer = parsed_->certificate.get();
  X509_set_issuer_name(issued.get(), X509_get_subject_name(issuer));
  AddExtension(NID_basic_constraints, "critical,CA:FALSE", issuer, *issued);
  AddExtension(NID_key_usage, "critical,digitalSignature", issuer, *issued);
  AddExtension(NID_ext_key_usage, "serverAuth,clientAuth", issuer, *issued);
  AddExtension(NID_subject_key_identifier, "hash", issuer, *issued);
  AddExtension(NID_authority_key_identifier, "keyid:always", issuer, *issued);
  AddNames(terms, *issued);
  Sign(*issued, *parsed_->key);
  return ToPem(*issued, *key);
}

}  // namespace baleen::security
