#include "security/transport.h"

#include <fmt/format.h>

#include <algorithm>

#include "observability/base/log.h"

namespace baleen::security {
namespace {

// 127.x.y.z, in numbers: a name may begin like one.
bool IsLoopback4(std::string_view host) {
  return host.starts_with("127.") && std::all_of(host.begin(), host.end(), [](char c) {
           return (c >= '0' && c <= '9') || c == '.';
         });
}

}  // namespace

bool StaysOnThisMachine(std::string_view address) {
  if (address.starts_with("unix:") || address.starts_with("unix-abstract:")) return true;
  const std::string_view host = address.substr(0, address.rfind(':'));
  return IsLoopback4(host) || host == "localhost" || host == "[::1]" || host == "::1";
}

absl::Status CheckCertificateFlags(std::string_view flags, const CertificateFiles& files,
                                   bool with_authority) {
  const int given = !files.certificate.empty() + !files.key.empty() + !files.authority.empty();
  if (given == 0 || given == (with_authority ? 3 : 2)) return absl::OkStatus();
  const std::string all = with_authority ? fmt::format("{0}-cert, {0}-key and {0}-ca", flags)
                                         : fmt::format("{0}-cert and {0}-key", flags);
  return absl::InvalidArgumentError(fmt::format("{} are given together or not at all", all));
}

absl::StatusOr<std::shared_ptr<CertificateStore>> OpenIfGiven(const CertificateFiles& files,
                                                              const Clock& clock) {
  if (files.certificate.empty()) return nullptr;
  return CertificateStore::Open(files, clock);
}

absl::Status CheckInternal(const InternalAddress& internal) {
  if (internal.has_certificates || StaysOnThisMachine(internal.address)) return absl::OkStatus();
  if (internal.insecure_allowed) {
    log::Warning("the inside of the cluster is open: no certificates",
                 {{"flag", internal.flag}, {"address", internal.address}});
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "{} {} is beyond this machine: give --internal-cert, --internal-key and --internal-ca "
      "(`baleen certs` makes them), or --insecure-internal on a network that you trust",
      internal.flag, internal.address));
}

}  // namespace baleen::security
