// `baleen certs`: a certificate authority of one's own, and what a cluster needs of it, for tries.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace CLI {
class App;
}

namespace baleen::cli {

struct CertsOptions {
  std::string folder;
  std::string trust_domain = "baleen.local";
  std::uint32_t days = 30;
  std::vector<std::string> hosts;  // of the public certificate, besides this machine's own
};

void AddCertsOptions(CLI::App& command, CertsOptions& options);

// Authority, public, router and worker, each a certificate and a key (mode 0600), valid from `now`.
// ALREADY_EXISTS names a file that is there: nothing is replaced. INVALID_ARGUMENT names the
// option.
absl::Status MakeCertificates(const CertsOptions& options, absl::Time now);

int RunCerts(const CertsOptions& options);

}  // namespace baleen::cli
