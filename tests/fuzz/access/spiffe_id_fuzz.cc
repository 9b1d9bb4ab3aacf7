// The URI of a certificate: what is taken has the one form that it can have.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "observability/base/check.h"
#include "security/authorization/identity.h"
#include "tests/fuzz/fuzz_target.h"

using baleen::security::IsTrustDomain;
using baleen::security::NameOf;
using baleen::security::ParseSpiffeId;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view uri(reinterpret_cast<const char*>(data), size);
  const auto identity = ParseSpiffeId(uri);
  if (!identity.ok()) return 0;
  const std::string start = "spiffe://" + identity->trust_domain + "/";
  BALEEN_CHECK(IsTrustDomain(identity->trust_domain), "the trust domain is one");
  BALEEN_CHECK(uri.starts_with(start), "and is where the URI has it");
  BALEEN_CHECK(uri.ends_with(std::string("/") + std::string(NameOf(identity->role))),
               "the role is its end");
  BALEEN_CHECK(uri.find_first_of("?#%@\\ ") == uri.npos && uri.find("//", 9) == uri.npos,
               "and nothing can be read in two ways");
  return 0;
}
