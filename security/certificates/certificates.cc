#include "security/certificates/certificates.h"

#include <fmt/format.h>
#include <openssl/pem.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "observability/base/status_macros.h"
#include "security/certificates/openssl.h"

namespace baleen::security {
namespace {

std::string Shown(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
}

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();  // not valid at any time
  return absl::FromTM(parts, absl::UTCTimeZone());
}

absl::StatusOr<std::vector<X509Pointer>> ParseAll(const std::string& path, const std::string& pem,
                                                  std::size_t count_max) {
  const BioPointer from = ReadFrom(pem);
  std::vector<X509Pointer> all;
  while (X509Pointer one{PEM_read_bio_X509(from.get(), nullptr, nullptr, nullptr)}) {
    if (all.size() >= count_max) {
      return absl::InvalidArgumentError(
          fmt::format("{} has more than {} certificates", path, count_max));
    }
    all.push_back(std::move(one));
  }
  const bool at_the_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  const std::string error = TakeOpensslError();
  if (all.empty()) {
    return absl::InvalidArgumentError(fmt::format("{} has no certificate in PEM", path));
  }
  if (!at_the_end) {
    return absl::InvalidArgumentError(
        fmt::format("certificate {} of {} can not be read: {}", all.size() + 1, path, error));
  }
  return all;
}

absl::Status CheckDates(const std::string& path, const X509& certificate, absl::Time now) {
  const absl::Time from = TimeOf(X509_get0_notBefore(&certificate));
  const absl::Time until = TimeOf(X509_get0_notAfter(&certificate));
  if (now >= until) {
    return absl::FailedPreconditionError(
        fmt::format("the certificate in {} has expired, on {}", path, Shown(until)));
  }
  if (now < from) {
    return absl::FailedPreconditionError(fmt::format(
        "the certificate in {} is not valid before {}, it is {}", path, Shown(from), Shown(now)));
  }
  return absl::OkStatus();
}

// A key with a passphrase is refused rather than asked for at a terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

absl::Status CheckKey(const CertificateFiles& files, const std::string& pem, X509& leaf) {
  const BioPointer from = ReadFrom(pem);
  const KeyPointer key(PEM_read_bio_PrivateKey(from.get(), nullptr, NoPassphrase, nullptr));
  const std::string error = TakeOpensslError();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("{} has no private key in PEM without a passphrase: {}", files.key, error));
  }
  if (X509_check_private_key(&leaf, key.get()) != 1) {
    ERR_clear_error();
    return absl::FailedPreconditionError(fmt::format(
        "the key in {} is not that of the certificate in {}", files.key, files.certificate));
  }
  return absl::OkStatus();
}

// One authority that is valid is enough: while they are exchanged an old one is there as well.
absl::Status CheckAuthorities(const std::string& path, const std::string& pem, absl::Time now) {
  BALEEN_ASSIGN_OR_RETURN(const auto authorities, ParseAll(path, pem, kAuthoritiesMax));
  absl::Status status;
  for (const X509Pointer& authority : authorities) {
    status = CheckDates(path, *authority, now);
    if (status.ok()) return status;
  }
  return status;
}

std::vector<std::string> UrisOf(const X509& leaf) {
  std::vector<std::string> uris;
  const NamesPointer names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&leaf, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* const uri = name->d.uniformResourceIdentifier;
    const auto* const bytes = reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri));
    uris.emplace_back(bytes, static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  return uris;
}

std::string SubjectOf(const X509& leaf) {
  const BioPointer out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(&leaf), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(out.get(), &text);
  return {text, static_cast<std::size_t>(std::max(bytes, 0L))};
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Certificates>> Certificates::Make(
    const CertificateFiles& files, PemTexts pem, absl::Time now) {
  BALEEN_ASSIGN_OR_RETURN(const auto chain,
                          ParseAll(files.certificate, pem.certificate, kChainCertificatesMax));
  auto made = std::make_shared<Certificates>();
  made->not_before = TimeOf(X509_get0_notBefore(chain[0].get()));
  made->not_after = absl::InfiniteFuture();
  for (const X509Pointer& certificate : chain) {
    BALEEN_RETURN_IF_ERROR(CheckDates(files.certificate, *certificate, now));
    made->not_after = std::min(made->not_after, TimeOf(X509_get0_notAfter(certificate.get())));
  }
  BALEEN_RETURN_IF_ERROR(CheckKey(files, pem.key, *chain[0]));
  if (!files.authority.empty()) {
    BALEEN_RETURN_IF_ERROR(CheckAuthorities(files.authority, pem.authority, now));
  }
  made->uris = UrisOf(*chain[0]);
  made->subject = SubjectOf(*chain[0]);
  made->pem = std::move(pem);
  return made;
}

}  // namespace baleen::security
