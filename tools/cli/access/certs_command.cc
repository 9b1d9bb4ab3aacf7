#include "tools/cli/access/certs_command.h"

#include <errno.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstring>

#include "observability/base/status_macros.h"
#include "security/authorization/identity.h"
#include "security/files/small_file.h"
#include "security/issuing/issuer.h"
#include "tools/cli/client/request_options.h"
#include "tools/cli/cluster/spec/certificate_paths.h"
#include "tools/cli/session/exit_code.h"
#include "tools/cli/terminal/style.h"

namespace baleen::cli {
namespace {

constexpr std::uint32_t kDaysMax = 3650;
constexpr std::size_t kHostsMax = 100;
// For peers whose clocks are behind.
constexpr absl::Duration kBegunBefore = absl::Minutes(5);

absl::Status Check(const CertsOptions& options) {
  if (!security::IsTrustDomain(options.trust_domain)) {
    return absl::InvalidArgumentError(
        fmt::format("--trust-domain '{}' is not 1 to {} of a-z 0-9 . _ -", options.trust_domain,
                    security::kTrustDomainBytesMax));
  }
  if (options.hosts.size() > kHostsMax) {
    return absl::InvalidArgumentError(
        fmt::format("--hosts: {}, the most are {}", options.hosts.size(), kHostsMax));
  }
  for (const std::string_view name : {kAuthorityName, kPublicName, kRouterName, kWorkerName}) {
    for (const std::string& path :
         {CertificatePath(options.folder, name), KeyPath(options.folder, name)}) {
      if (::access(path.c_str(), F_OK) != 0) continue;
      return absl::AlreadyExistsError(
          fmt::format("{} is there already: take another folder, or remove it", path));
    }
  }
  return absl::OkStatus();
}

absl::Status MakeFolder(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("cannot make the folder {}: {}", path, std::strerror(errno)));
}

absl::Status Write(const std::string& folder, std::string_view name,
                   const security::IssuedCertificate& issued) {
  BALEEN_RETURN_IF_ERROR(
      security::WriteSmallFile({.path = KeyPath(folder, name), .text = issued.key, .mode = 0600}));
  return security::WriteSmallFile(
      {.path = CertificatePath(folder, name), .text = issued.certificate, .mode = 0644});
}

security::CertificateTerms TermsOf(const CertsOptions& options, std::string_view name,
                                   const security::Validity& validity) {
  security::CertificateTerms terms{.common_name = fmt::format("baleen {}", name),
                                   .hosts = {"localhost", "127.0.0.1", "::1"},
                                   .validity = validity};
  if (name == kPublicName) {
    terms.hosts.insert(terms.hosts.end(), options.hosts.begin(), options.hosts.end());
  } else {
    terms.uris = {fmt::format("spiffe://{}/baleen/{}", options.trust_domain, name)};
  }
  return terms;
}

}  // namespace

void AddCertsOptions(CLI::App& command, CertsOptions& options) {
  command.add_option("--out", options.folder, "Folder for the files, made if need be")
      ->type_name("DIR")
      ->required();
  command.add_option("--trust-domain", options.trust_domain, "Of the cluster [baleen.local]")
      ->type_name("NAME");
  command.add_option("--days", options.days, "How long they are valid [30]")
      ->type_name("N")
      ->check(WholeNumber(1, kDaysMax));
  command.add_option("--hosts", options.hosts, "Names and addresses that clients dial, A[,B]")
      ->type_name("HOSTS")
      ->delimiter(',');
  command.footer(
      "For tries: who has the folder can make more certificates of the cluster. Then:\n"
      "  baleen up --certs DIR ..., baleen chat --tls-ca DIR/ca.pem ...");
}

absl::Status MakeCertificates(const CertsOptions& options, absl::Time now) {
  BALEEN_RETURN_IF_ERROR(Check(options));
  const security::Validity validity{.from = now - kBegunBefore,
                                    .until = now + absl::Hours(24) * options.days};
  BALEEN_ASSIGN_OR_RETURN(
      const security::Issuer issuer,
      security::Issuer::Make(fmt::format("baleen ca {:.40}", options.trust_domain), validity));
  BALEEN_RETURN_IF_ERROR(MakeFolder(options.folder));
  for (const std::string_view name : {kPublicName, kRouterName, kWorkerName}) {
    BALEEN_ASSIGN_OR_RETURN(const security::IssuedCertificate issued,
                            issuer.Issue(TermsOf(options, name, validity)));
    BALEEN_RETURN_IF_ERROR(Write(options.folder, name, issued));
  }
  return Write(options.folder, kAuthorityName, issuer.own());
}

int RunCerts(const CertsOptions& options) {
  if (const auto made = MakeCertificates(options, absl::Now()); !made.ok()) return ExitWith(made);
  WriteAll(STDOUT_FILENO,
           fmt::format("{0}: ca, public, router and worker, each NAME.pem and NAME-key.pem, valid "
                       "for {1} days\n",
                       options.folder, options.days));
  return kExitGood;
}

}  // namespace baleen::cli
