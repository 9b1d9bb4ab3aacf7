// A certificate authority of one's own, for tries and tests: ECDSA P-256, SHA-256.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace baleen::security {

struct Validity {
  absl::Time from;
  absl::Time until;
};

struct CertificateTerms {
  std::string common_name;
  std::vector<std::string> hosts;  // DNS names and IP addresses
  std::vector<std::string> uris;
  Validity validity;
};

// PEM.
struct IssuedCertificate {
  std::string certificate;
  std::string key;
};

class Issuer {
 public:
  // A new authority. INVALID_ARGUMENT: a name that does not fit a certificate, or no time between.
  static absl::StatusOr<Issuer> Make(const std::string& common_name, const Validity& validity);
  Issuer(Issuer&&) noexcept;
  Issuer& operator=(Issuer&&) noexcept;
  ~Issuer();

  const IssuedCertificate& own() const { return own_; }

  // For servers and clients, with a key of its own.
  absl::StatusOr<IssuedCertificate> Issue(const CertificateTerms& terms) const;

 private:
  struct Parsed;
  Issuer(IssuedCertificate own, std::unique_ptr<Parsed> parsed);

  IssuedCertificate own_;
  std::unique_ptr<Parsed> parsed_;
};

}  // namespace baleen::security
