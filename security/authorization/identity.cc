#include "security/authorization/identity.h"

#include <fmt/format.h>

#include <algorithm>

#include "observability/base/status_macros.h"

namespace baleen::security {
namespace {

constexpr std::string_view kScheme = "spiffe://";

bool IsLowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsMark(char c) { return c == '.' || c == '_' || c == '-'; }

bool IsSegment(std::string_view text) {
  return !text.empty() && text != "." && text != ".." &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return IsLowerOrDigit(c) || (c >= 'A' && c <= 'Z') || IsMark(c);
         });
}

absl::Status Refused(std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("the certificate's URI {}", why));
}

}  // namespace

std::string_view NameOf(Role role) { return role == Role::kRouter ? "router" : "worker"; }

bool IsTrustDomain(std::string_view text) {
  return !text.empty() && text.size() <= kTrustDomainBytesMax &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return IsLowerOrDigit(c) || IsMark(c); });
}

absl::StatusOr<Identity> ParseSpiffeId(std::string_view uri) {
  if (uri.size() > kSpiffeIdBytesMax) {
    return Refused(fmt::format("has {} bytes, the limit is {}", uri.size(), kSpiffeIdBytesMax));
  }
  if (!uri.starts_with(kScheme)) return Refused("does not begin with spiffe://");
  uri.remove_prefix(kScheme.size());
  const std::size_t slash = uri.find('/');
  const std::string_view domain = uri.substr(0, slash);
  if (!IsTrustDomain(domain)) {
    return Refused(
        fmt::format("has no trust domain of 1 to {} of a-z 0-9 . _ -", kTrustDomainBytesMax));
  }
  if (slash == std::string_view::npos) return Refused("has no path: no role");
  std::string_view segment;
  for (std::string_view path = uri.substr(slash); !path.empty();) {
    path.remove_prefix(1);  // the slash
    segment = path.substr(0, path.find('/'));
    if (!IsSegment(segment))
      return Refused("has a path with a part that is not of A-Z a-z 0-9 . _ -");
    path.remove_prefix(segment.size());
  }
  for (const Role role : {Role::kRouter, Role::kWorker}) {
    if (segment == NameOf(role)) return Identity{.trust_domain = std::string(domain), .role = role};
  }
  return Refused("ends with neither /router nor /worker: no role");
}

absl::StatusOr<Identity> IdentityOf(std::span<const std::string> uris) {
  if (uris.size() != 1) {
    return absl::InvalidArgumentError(
        fmt::format("the certificate has {} URIs, not the one that says its role", uris.size()));
  }
  return ParseSpiffeId(uris[0]);
}

absl::Status CheckPeer(const Identity& own, const Identity& peer, Role role) {
  if (peer.trust_domain != own.trust_domain) {
    return absl::PermissionDeniedError(fmt::format(
        "the certificate is of trust domain '{}', not '{}'", peer.trust_domain, own.trust_domain));
  }
  if (peer.role != role) {
    return absl::PermissionDeniedError(
        fmt::format("the certificate is of a {}, not of a {}", NameOf(peer.role), NameOf(role)));
  }
  return absl::OkStatus();
}

}  // namespace baleen::security
