// Expert token counts as a file: how many tokens went to each expert of each MoE layer. JSON:
//
//   {"layers": [[1204, 17, ...], ...]}
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/group/messages.h"

namespace baleen::cli {

inline constexpr std::size_t kCountsFileBytesMax = std::size_t{16} << 20;
static_assert(worker::kPlacementSlotsMax * 17 < kCountsFileBytesMax,
              "counts of 15 digits and a separator each fit");

// Strict: no field but `layers`; 1 to kMoeLayersMax of them, all with the same number of experts, 1
// to kExpertsMax; whole numbers from 0 to kExpertTokensMax. INVALID_ARGUMENT begins with `what` and
// names the field and the limit.
absl::StatusOr<worker::ExpertCounts> ParseCounts(std::string_view what, std::string_view text);

// One line for each layer; ParseCounts reads it back.
std::string FormatCounts(const worker::ExpertCounts& counts);

// "-" is standard input. Errors name the path.
absl::StatusOr<worker::ExpertCounts> ReadCountsFile(const std::string& path);
absl::Status WriteCountsFile(const std::string& path, const worker::ExpertCounts& counts);

}  // namespace baleen::cli
