// A certificate chain with its key, checked: what is presented to peers, and whom to believe.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace baleen::security {

inline constexpr std::size_t kPemFileBytesMax = std::size_t{1} << 20;
inline constexpr std::size_t kChainCertificatesMax = 16;
inline constexpr std::size_t kAuthoritiesMax = 256;

// Paths of PEM files.
struct CertificateFiles {
  std::string certificate;  // leaf first, then those that lead to an authority
  std::string key;          // without a passphrase
  std::string authority;    // whose certificates to believe; empty = peers need none
};

struct PemTexts {
  std::string certificate;
  std::string key;
  std::string authority;
};

// Immutable.
struct Certificates {
  PemTexts pem;
  std::vector<std::string> uris;  // subject alternative names of the leaf
  std::string subject;            // of the leaf, for logs
  absl::Time not_before;
  absl::Time not_after;  // the earliest of the chain

  // Parses and checks: every certificate is valid now, the key is the leaf's. INVALID_ARGUMENT or
  // FAILED_PRECONDITION names the file of `files`, and the date or the limit.
  static absl::StatusOr<std::shared_ptr<const Certificates>> Make(const CertificateFiles& files,
                                                                  PemTexts pem, absl::Time now);
};

}  // namespace baleen::security
