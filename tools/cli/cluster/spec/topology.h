// How many groups the workers of a role make, and how wide these are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace baleen::cli {

inline constexpr std::uint32_t kWorkersMax = 64;  // of a cluster on one machine

struct Topology {
  std::uint32_t groups = 0;  // 0 = no workers of this role
  std::uint32_t ranks = 1;   // of each group; they share the experts

  std::uint64_t workers() const { return std::uint64_t{groups} * ranks; }

  friend bool operator==(const Topology&, const Topology&) = default;
};

// "2x4" is two groups of four ranks, "3" three groups of one rank, "0" none. INVALID_ARGUMENT shows
// the text and the limits: each number from 1 on, at most kWorkersMax workers.
absl::StatusOr<Topology> ParseTopology(std::string_view text);

// As ParseTopology takes it, in the shorter form where there is one.
std::string ToString(const Topology& topology);

}  // namespace baleen::cli
