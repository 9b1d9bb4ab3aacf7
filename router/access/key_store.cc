#include "router/access/key_store.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "observability/base/check.h"
#include "observability/base/log.h"
#include "observability/base/status_macros.h"
#include "proto/contract/status.h"
#include "router/access/key_file.h"

namespace baleen::router {
namespace {

constexpr absl::Duration kLookEvery = absl::Seconds(1);
constexpr std::string_view kScheme = "bearer";

absl::Status Unauthenticated(std::string_view why) {
  return contract::MakeStatus(contract::Reason::kUnauthenticated, why);
}

// What follows "Bearer " in any case (RFC 7235), without the blanks around it.
std::optional<std::string_view> KeyOf(std::string_view authorization) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  if (authorization.size() <= kScheme.size() || authorization[kScheme.size()] != ' ') return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    if (lower(authorization[i]) != kScheme[i]) return {};
  }
  std::string_view key = authorization.substr(kScheme.size());
  while (key.starts_with(' ')) key.remove_prefix(1);
  while (key.ends_with(' ')) key.remove_suffix(1);
  if (key.empty()) return {};
  return key;
}

}  // namespace

// The keys of one state of the file. Immutable.
class KeyStore::Table {
 public:
  explicit Table(std::vector<KeyEntry> entries) {
    BALEEN_CHECK(RAND_bytes(blind_.data(), blind_.size()) == 1, "the system has random numbers");
    for (KeyEntry& entry : entries) {
      rows_.push_back({.blinded = Blind(entry.digest),
                       .digest = entry.digest,
                       .caller = std::make_shared<const Caller>(std::move(entry.caller)),
                       .expires = entry.expires});
    }
    std::sort(rows_.begin(), rows_.end(),
              [](const Row& a, const Row& b) { return a.blinded < b.blinded; });
  }

  std::size_t size() const { return rows_.size(); }

  absl::StatusOr<CallerPointer> Find(std::string_view key, absl::Time now) const {
    const KeyDigest digest = DigestOfKey(key);
    const KeyDigest blinded = Blind(digest);
    const auto row =
        std::lower_bound(rows_.begin(), rows_.end(), blinded,
                         [](const Row& a, const KeyDigest& b) { return a.blinded < b; });
    // A key that is not there is compared as well.
    const KeyDigest& stored = row == rows_.end() ? blinded : row->digest;
    const bool equal = CRYPTO_memcmp(stored.data(), digest.data(), digest.size()) == 0;
    if (row == rows_.end() || !equal) return Unauthenticated("the API key is not known");
    if (row->expires.has_value() && now >= *row->expires) {
      return Unauthenticated(
          fmt::format("the API key has expired, on {}",
                      absl::FormatTime(absl::RFC3339_sec, *row->expires, absl::UTCTimeZone())));
    }
    return row->caller;
  }

 private:
  struct Row {
    KeyDigest blinded;
    KeyDigest digest;
    CallerPointer caller;
    std::optional<absl::Time> expires;
  };

  KeyDigest Blind(const KeyDigest& digest) const {
    KeyDigest blinded{};
    unsigned int length = 0;
    const auto* ok = HMAC(EVP_sha256(), blind_.data(), static_cast<int>(blind_.size()),
                          digest.data(), digest.size(), blinded.data(), &length);
    BALEEN_CHECK(ok != nullptr && length == blinded.size(), "HMAC-SHA256 is always available");
    return blinded;
  }

  std::array<unsigned char, 32> blind_{};
  std::vector<Row> rows_;  // by `blinded`
};

struct KeyStore::Watched {
  Watched(const std::string& path, const Clock& its_clock)
      : clock(its_clock), file(path, kKeyFileBytesMax) {}

  // Null: the file is as it was.
  absl::StatusOr<std::shared_ptr<const Table>> ReadIfChanged() {
    looked_at = clock.Monotonic();
    BALEEN_ASSIGN_OR_RETURN(const std::optional<std::string> text,
                            file.ReadIfChanged(clock.Wall()));
    if (!text.has_value()) return nullptr;
    auto entries = ParseKeyFile(*text);
    if (!entries.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{}: {}", file.path(), std::string(entries.status().message())));
    }
    if (security::ReadableByOthers(file.signature())) {
      log::Warning("the file of API keys can be read by every user of this machine",
                   {{"file", file.path()}});
    }
    return std::make_shared<const Table>(*std::move(entries));
  }

  const Clock& clock;
  std::mutex reload;  // one thread reads the file, the others go on with what there is
  // Guarded by reload:
  security::WatchedFile file;
  absl::Duration looked_at;

  std::mutex mutex;
  std::shared_ptr<const Table> table;  // guarded by mutex
};

KeyStore::KeyStore() : KeyStore(nullptr) {}

KeyStore::KeyStore(std::unique_ptr<Watched> watched)
    : anyone_(std::make_shared<const Caller>()), watched_(std::move(watched)) {}

KeyStore::~KeyStore() = default;

absl::StatusOr<std::unique_ptr<KeyStore>> KeyStore::Open(const std::string& path,
                                                         const Clock& clock) {
  auto watched = std::make_unique<Watched>(path, clock);
  BALEEN_ASSIGN_OR_RETURN(watched->table, watched->ReadIfChanged());
  log::Info("API keys read", {{"file", path}, {"keys", watched->table->size()}});
  return std::unique_ptr<KeyStore>(new KeyStore(std::move(watched)));
}

absl::StatusOr<CallerPointer> KeyStore::Authenticate(std::string_view authorization) const {
  if (!required()) return anyone_;
  if (authorization.empty()) {
    return Unauthenticated("an API key is needed, as 'authorization: Bearer KEY'");
  }
  const std::optional<std::string_view> key = KeyOf(authorization);
  if (!key.has_value()) return Unauthenticated("'authorization' is not 'Bearer KEY'");
  if (key->size() > kKeyBytesMax) {
    return Unauthenticated(
        fmt::format("the API key has {} bytes, the limit is {}", key->size(), kKeyBytesMax));
  }
  return Current()->Find(*key, watched_->clock.Wall());
}

std::shared_ptr<const KeyStore::Table> KeyStore::Current() const {
  Watched& watched = *watched_;
  if (std::unique_lock reload(watched.reload, std::try_to_lock);
      reload.owns_lock() && watched.clock.Monotonic() - watched.looked_at >= kLookEvery) {
    absl::StatusOr<std::shared_ptr<const Table>> read = watched.ReadIfChanged();
    if (!read.ok()) {
      log::Error("the new API keys can not be used, the old ones stay",
                 {{"reason", std::string(read.status().message())}});
    } else if (*read != nullptr) {
      log::Info("API keys read again", {{"file", watched.file.path()}, {"keys", (*read)->size()}});
      const std::lock_guard lock(watched.mutex);
      watched.table = *std::move(read);
    }
  }
  const std::lock_guard lock(watched.mutex);
  return watched.table;
}

}  // namespace baleen::router
