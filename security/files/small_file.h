// Small files of keys and certificates: read whole or not at all, written whole or not at all.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baleen::security {

// What tells one state of a file from another.
struct FileSignature {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;
  std::int64_t changed_ns = 0;
  std::uint32_t mode = 0;
  bool operator==(const FileSignature&) const = default;
};

// NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT (not a plain file) names the file.
absl::StatusOr<FileSignature> SignatureOf(const std::string& path);

struct SmallFile {
  std::string text;
  FileSignature signature;
};

// At most `bytes_max`, else INVALID_ARGUMENT names the limit. UNAVAILABLE: it was written to
// meanwhile; read it again later.
absl::StatusOr<SmallFile> ReadSmallFile(const std::string& path, std::size_t bytes_max);

// Whether others than the owner may read it. A group may where it is given one on purpose (mode
// 0640): that is how Kubernetes gives secrets to a process that is not root.
bool ReadableByOthers(const FileSignature& signature);

struct NewFile {
  std::string path;
  std::string text;
  std::uint32_t mode = 0600;
  bool replace = false;  // else ALREADY_EXISTS
};

// Writes beside it and renames: a reader sees the old file or the new one.
absl::Status WriteSmallFile(const NewFile& file);

}  // namespace baleen::security
