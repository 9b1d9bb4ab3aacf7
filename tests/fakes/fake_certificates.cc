#include "tests/fakes/fake_certificates.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace baleen::fakes {
namespace {

std::string MakeFolder() {
  std::string folder = (std::filesystem::temp_directory_path() / "baleen-certificates-XXXXXX");
  return ::mkdtemp(folder.data());
}

}  // namespace

void WriteFile(const std::string& path, std::string_view text) {
  // A new file in its place, as tools that exchange certificates do it.
  const std::string beside = path + ".new";
  std::ofstream(beside, std::ios::binary) << text;
  std::filesystem::permissions(
      beside, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  std::filesystem::rename(beside, path);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

FakeAuthority::FakeAuthority(std::string_view name)
    : folder_(MakeFolder()),
      issuer_(*security::Issuer::Make(
          std::string(name),
          {.from = absl::Now() - absl::Hours(48), .until = absl::Now() + absl::Hours(48)})) {
  WriteFile(authority_file(), issuer_.own().certificate);
}

FakeAuthority::~FakeAuthority() { std::filesystem::remove_all(folder_); }

security::CertificateFiles FakeAuthority::Issue(std::string_view name,
                                                const FakeTerms& terms) const {
  const security::IssuedCertificate issued = *issuer_.Issue(
      {.common_name = std::string(name),
       .hosts = terms.hosts,
       .uris = terms.uris,
       .validity = {.from = absl::Now() + terms.begins, .until = absl::Now() + terms.ends}});
  const std::string base(name);
  WriteFile(PathOf(base + ".pem"), issued.certificate);
  WriteFile(PathOf(base + "-key.pem"), issued.key);
  return {.certificate = PathOf(base + ".pem"),
          .key = PathOf(base + "-key.pem"),
          .authority = authority_file()};
}

security::CertificateFiles FakeAuthority::IssueRole(std::string_view role,
                                                    std::string_view domain) const {
  return Issue(role, {.uris = {"spiffe://" + std::string(domain) + "/test/" + std::string(role)}});
}

std::string FakeAuthority::PathOf(std::string_view file) const {
  return folder_ + "/" + std::string(file);
}

}  // namespace baleen::fakes
