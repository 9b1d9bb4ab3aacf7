#include "security/files/watched_file.h"

#include <openssl/evp.h>

#include <utility>

#include "observability/base/check.h"

namespace baleen::security {
namespace {

// File systems count time in steps of up to 2 s.
constexpr absl::Duration kSettledAfter = absl::Seconds(2);

std::array<std::uint8_t, 32> DigestOf(const std::string& text) {
  std::array<std::uint8_t, 32> digest{};
  const int ok =
      EVP_Digest(text.data(), text.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  BALEEN_CHECK(ok == 1, "SHA-256 is always available");
  return digest;
}

}  // namespace

absl::StatusOr<std::optional<std::string>> WatchedFile::ReadIfChanged(absl::Time now) {
  absl::StatusOr<FileSignature> signature = SignatureOf(path_);
  if (signature.ok() && settled_ && *signature == seen_) return std::nullopt;
  absl::StatusOr<SmallFile> file =
      signature.ok() ? ReadSmallFile(path_, bytes_max_) : signature.status();
  if (!file.ok()) {
    settled_ = false;
    const std::string error(file.status().message());
    if (error == error_) return std::nullopt;
    error_ = error;
    return file.status();
  }
  error_.clear();
  seen_ = file->signature;
  settled_ = now - absl::FromUnixNanos(seen_.modified_ns) > kSettledAfter;
  return Fresh(std::move(file->text));
}

absl::StatusOr<std::optional<std::string>> WatchedFile::Fresh(std::string text) {
  const auto digest = DigestOf(text);
  if (digest_ == digest) return std::nullopt;
  digest_ = digest;
  return std::optional<std::string>(std::move(text));
}

}  // namespace baleen::security
