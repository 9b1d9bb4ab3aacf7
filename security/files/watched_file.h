// A small file that is read again when it has changed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "security/files/small_file.h"

namespace baleen::security {

// Not thread-safe.
class WatchedFile {
 public:
  WatchedFile(std::string path, std::size_t bytes_max)
      : path_(std::move(path)), bytes_max_(bytes_max) {}

  const std::string& path() const { return path_; }

  // The text, if it is another than at the last call; nullopt if not. An error is as new as a text:
  // it is returned once. The first call always says something. `now` is the wall clock.
  absl::StatusOr<std::optional<std::string>> ReadIfChanged(absl::Time now);

  // Of what was read last; zero before.
  const FileSignature& signature() const { return seen_; }

 private:
  absl::StatusOr<std::optional<std::string>> Fresh(std::string text);

  const std::string path_;
  const std::size_t bytes_max_;
  FileSignature seen_;
  // A file that was written to just now may be written to again within the same tick of its clock.
  bool settled_ = false;
  std::optional<std::array<std::uint8_t, 32>> digest_;  // of the text that was given out last
  std::string error_;                                   // that was given out last
};

}  // namespace baleen::security
