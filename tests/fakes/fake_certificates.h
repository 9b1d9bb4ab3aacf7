// Certificates for tests, in files of a folder of the test's own.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "security/certificates/certificates.h"
#include "security/issuing/issuer.h"

namespace baleen::fakes {

struct FakeTerms {
  std::vector<std::string> uris;
  std::vector<std::string> hosts = {"localhost", "127.0.0.1"};
  absl::Duration begins = -absl::Hours(1);  // from now
  absl::Duration ends = absl::Hours(24);
};

// One authority, and what it has issued. A folder is removed with its object.
class FakeAuthority {
 public:
  explicit FakeAuthority(std::string_view name);
  ~FakeAuthority();
  FakeAuthority(const FakeAuthority&) = delete;
  FakeAuthority& operator=(const FakeAuthority&) = delete;

  // New files `name`.pem and `name`-key.pem, in place of those of that name, and the authority's.
  security::CertificateFiles Issue(std::string_view name, const FakeTerms& terms) const;
  // With the URI spiffe://`domain`/test/`role`.
  security::CertificateFiles IssueRole(std::string_view role,
                                       std::string_view domain = "test") const;

  std::string PathOf(std::string_view file) const;
  std::string authority_file() const { return PathOf("ca.pem"); }

 private:
  std::string folder_;
  security::Issuer issuer_;
};

void WriteFile(const std::string& path, std::string_view text);
std::string ReadFile(const std::string& path);

}  // namespace baleen::fakes
