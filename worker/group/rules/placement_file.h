// A placement of all MoE layers as a file: what `baleen placement` writes and the leader starts
// with. JSON:
//
//   {"version": 1, "experts": 256, "ranks": 32, "redundant_experts": 32,
//    "layers": [[0, 17, ...], ...]}
//
// Each layer lists the expert of every slot; slot s is on rank s / (slots / ranks).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/group/messages.h"

namespace baleen::worker {

inline constexpr std::size_t kPlacementFileBytesMax = std::size_t{8} << 20;

// Strict: every field must be there, and no other. The placement's version (the leader's count) is
// 0. INVALID_ARGUMENT begins with `what` and names the field, the value and the limit.
absl::StatusOr<GroupPlacement> ParsePlacement(std::string_view what, std::string_view text);

// One line for each layer; ParsePlacement reads it back.
std::string FormatPlacement(const GroupPlacement& placement);

// NOT_FOUND or another error of the system names the path.
absl::StatusOr<GroupPlacement> ReadPlacementFile(const std::string& path);
// Replaces the file as a whole or not at all; only a regular one.
absl::Status WritePlacementFile(const std::string& path, const GroupPlacement& placement);

}  // namespace baleen::worker
