// Adds keys to a file of API keys, and takes them out.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "router/access/key_file.h"

namespace baleen::cli {

// Empty when there is no such file yet. Errors name the file and the line.
absl::StatusOr<std::vector<router::KeyEntry>> ReadKeys(const std::string& path);

// The new key itself: nothing else has it. ALREADY_EXISTS: the name. INVALID_ARGUMENT: what the
// router would refuse to read. The file is replaced at once and has mode 0600.
absl::StatusOr<std::string> AddKey(const std::string& path, router::KeyEntry entry);

// NOT_FOUND: the name, or the file.
absl::Status RemoveKey(const std::string& path, const std::string& name);

}  // namespace baleen::cli
