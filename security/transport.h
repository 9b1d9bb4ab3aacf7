// Which certificates a process uses, as its options say it, and what it may do without.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "observability/base/clock.h"
#include "security/certificates/certificate_store.h"

namespace baleen::security {

// Whether only this machine can be at the other end: 127.0.0.0/8, ::1, "localhost" or a Unix
// socket. A name of a network may be anybody's.
bool StaysOnThisMachine(std::string_view address);

// INVALID_ARGUMENT, naming the flags, unless all files are given or none. `flags` is "--tls" for
// --tls-cert and --tls-key, and so on; an authority (--internal-ca) is part of it where
// `with_authority`.
absl::Status CheckCertificateFlags(std::string_view flags, const CertificateFiles& files,
                                   bool with_authority);

// Null when no files are given.
absl::StatusOr<std::shared_ptr<CertificateStore>> OpenIfGiven(const CertificateFiles& files,
                                                              const Clock& clock);

// A connection or port of the cluster's inside.
struct InternalAddress {
  std::string_view flag;  // that names it, "--worker-listen"
  std::string_view address;
  bool has_certificates = false;
  bool insecure_allowed = false;  // --insecure-internal
};

// INVALID_ARGUMENT for an address beyond this machine without certificates, unless that was
// allowed: then it is logged.
absl::Status CheckInternal(const InternalAddress& internal);

}  // namespace baleen::security
