#include "tools/cli/access/key_file_edits.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "observability/base/status_macros.h"
#include "security/files/small_file.h"

namespace baleen::cli {
namespace {

absl::Status In(const std::string& path, const absl::Status& status) {
  return {status.code(), fmt::format("{}: {}", path, std::string(status.message()))};
}

absl::Status Replace(const std::string& path, const std::vector<router::KeyEntry>& entries) {
  std::string text = router::FormatKeyFile(entries);
  // As the router will read it.
  if (const auto again = router::ParseKeyFile(text); !again.ok()) return In(path, again.status());
  return security::WriteSmallFile({.path = path, .text = std::move(text), .replace = true});
}

}  // namespace

absl::StatusOr<std::vector<router::KeyEntry>> ReadKeys(const std::string& path) {
  const auto file = security::ReadSmallFile(path, router::kKeyFileBytesMax);
  if (absl::IsNotFound(file.status())) return std::vector<router::KeyEntry>();
  BALEEN_RETURN_IF_ERROR(file.status());
  auto entries = router::ParseKeyFile(file->text);
  if (!entries.ok()) return In(path, entries.status());
  return entries;
}

absl::StatusOr<std::string> AddKey(const std::string& path, router::KeyEntry entry) {
  BALEEN_ASSIGN_OR_RETURN(auto entries, ReadKeys(path));
  for (const router::KeyEntry& other : entries) {
    if (other.caller.key_name != entry.caller.key_name) continue;
    return absl::AlreadyExistsError(
        fmt::format("{} has a key of the name '{}'", path, entry.caller.key_name));
  }
  std::string key = router::MakeKey();
  entry.digest = router::DigestOfKey(key);
  entries.push_back(std::move(entry));
  BALEEN_RETURN_IF_ERROR(Replace(path, entries));
  return key;
}

absl::Status RemoveKey(const std::string& path, const std::string& name) {
  BALEEN_ASSIGN_OR_RETURN(auto entries, ReadKeys(path));
  const auto removed = std::erase_if(
      entries, [&](const router::KeyEntry& entry) { return entry.caller.key_name == name; });
  if (removed == 0) {
    return absl::NotFoundError(fmt::format("{} has no key of the name '{}'", path, name));
  }
  return Replace(path, entries);
}

}  // namespace baleen::cli
