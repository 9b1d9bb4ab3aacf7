// `baleen keys`: the API keys of a router.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace baleen::cli {

struct KeysOptions {
  std::string action;  // "add", "list" or "remove"
  std::string file;
  std::string name;
  std::string tenant;
  std::optional<std::uint32_t> priority_max;
  std::optional<std::uint64_t> tokens_per_minute;
  std::vector<std::string> models;
  std::optional<std::uint32_t> days;
};

void AddKeysOptions(CLI::App& command, KeysOptions& options);

// 0; 1 when the file can not be read or written; 2 when the options do not go together.
int RunKeys(const KeysOptions& options);

}  // namespace baleen::cli
