// Who a peer of the cluster is, by the URI in its certificate:
// spiffe://TRUST_DOMAIN/any/path/router or .../worker. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baleen::security {

inline constexpr std::size_t kSpiffeIdBytesMax = 2048;
inline constexpr std::size_t kTrustDomainBytesMax = 255;

enum class Role : std::uint8_t { kRouter, kWorker };
std::string_view NameOf(Role role);

struct Identity {
  std::string trust_domain;
  Role role = Role::kWorker;
};

// a-z 0-9 . _ -, 1 to 255 bytes.
bool IsTrustDomain(std::string_view text);

// The canonical form only: lower-case scheme and trust domain, no port, query, fragment or
// percent-encoding, no empty, "." or ".." segment. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<Identity> ParseSpiffeId(std::string_view uri);

// The identity in a certificate with these URIs: there must be exactly one, or the certificate
// could be read in two ways.
absl::StatusOr<Identity> IdentityOf(std::span<const std::string> uris);

// OK when `peer` is in the trust domain of `own` and has `role`; PERMISSION_DENIED otherwise.
absl::Status CheckPeer(const Identity& own, const Identity& peer, Role role);

}  // namespace baleen::security
