// The file of API keys, as text. Pure.
//
//   {"keys": [{"name": "ci", "sha256": "64 hexadecimal digits", "tenant": "acme",
//              "priority_max": 5, "tokens_per_minute": 100000, "models": ["nano"],
//              "expires": "2027-01-31T00:00:00Z"}]}
//
// name, sha256 and tenant are needed; the rest is as in Caller when it is left out. What it does
// not know is refused: a typing error in a limit would otherwise be no limit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/access/caller.h"

namespace baleen::router {

inline constexpr std::size_t kKeyFileBytesMax = std::size_t{4} << 20;
inline constexpr std::size_t kKeysMax = 10'000;
inline constexpr std::size_t kKeyNameBytesMax = 64;  // of names and tenants
inline constexpr std::size_t kKeyModelsMax = 64;     // that one key may name
inline constexpr std::size_t kKeyBytesMax = 256;     // of a presented key
inline constexpr std::uint64_t kTokensPerMinuteMax = 1'000'000'000;

using KeyDigest = std::array<std::uint8_t, 32>;  // SHA-256 of a key

struct KeyEntry {
  KeyDigest digest{};
  Caller caller;
  std::optional<absl::Time> expires;
};

// INVALID_ARGUMENT "line 7: ..." names what is wrong and the limit. Names and digests are unique,
// and the keys of a tenant agree on its tokens_per_minute.
absl::StatusOr<std::vector<KeyEntry>> ParseKeyFile(std::string_view text);

// As ParseKeyFile takes it, one key a line.
std::string FormatKeyFile(std::span<const KeyEntry> entries);

KeyDigest DigestOfKey(std::string_view key);

// A new key, 256 random bits: "bln_" and 43 characters of base64url.
std::string MakeKey();

}  // namespace baleen::router
