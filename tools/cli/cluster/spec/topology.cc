#include "tools/cli/cluster/spec/topology.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace baleen::cli {
namespace {

// 1 to kWorkersMax in decimal digits, as written: no sign, no zero in front.
std::optional<std::uint32_t> ParseCount(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  if (!whole || text.front() == '0' || value > kWorkersMax) return std::nullopt;
  return value;
}

}  // namespace

absl::StatusOr<Topology> ParseTopology(std::string_view text) {
  if (text == "0") return Topology{};
  const std::size_t cross = text.find('x');
  const auto groups = ParseCount(text.substr(0, cross));
  const auto ranks = cross == text.npos ? 1u : ParseCount(text.substr(cross + 1));
  if (!groups || !ranks) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not GROUPSxRANKS, each from 1 to {}, nor a number of groups of one "
                    "rank, 0 to {}",
                    text.substr(0, 40), kWorkersMax, kWorkersMax));
  }
  const Topology topology{.groups = *groups, .ranks = *ranks};
  if (topology.workers() > kWorkersMax) {
    return absl::InvalidArgumentError(fmt::format("'{}' makes {} workers, the most are {}", text,
                                                  topology.workers(), kWorkersMax));
  }
  return topology;
}

std::string ToString(const Topology& topology) {
  if (topology.ranks == 1) return std::to_string(topology.groups);
  return fmt::format("{}x{}", topology.groups, topology.ranks);
}

}  // namespace baleen::cli
