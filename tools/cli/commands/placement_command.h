// `baleen placement`: which rank of a group should hold which experts, by the load that was
// measured, and what that is worth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace baleen::cli {

struct PlacementOptions {
  // One of both.
  std::string counts_file;          // "-" = standard input
  std::string group_leader;         // host:port or unix-abstract:NAME
  std::string certificates_folder;  // of the leader's cluster; empty: plaintext

  // Of the placement; with a leader, as its group has them unless they are given.
  std::optional<std::uint32_t> ranks;
  std::optional<std::uint32_t> redundant_experts;
  std::uint32_t nodes = 1;
  std::uint32_t expert_groups = 1;

  std::string output_file;       // empty = none
  std::string save_counts_file;  // empty = none
  bool apply = false;
  bool json = false;
};

void AddPlacementOptions(CLI::App& command, PlacementOptions& options);

// 0; 1 when a file or the leader fails; 2 when the options do not go together.
int RunPlacement(const PlacementOptions& options);

}  // namespace baleen::cli
