// One thing that `baleen doctor` looks at, and what it found.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/cli/terminal/style.h"

namespace baleen::cli {

enum class CheckLevel : std::uint8_t {
  kGood,
  kNote,  // works, but something is missing that would help, or that only some uses need
  kBad,   // a cluster can not run here
};

struct Check {
  std::string name;
  CheckLevel level = CheckLevel::kGood;
  std::string detail;  // what was found, one line
  std::string fix;     // what to do about it; empty when good
};

using Checks = std::vector<Check>;

// Whether nothing is kBad.
bool AllWell(const Checks& checks);

// For people: a line for each check, the fix below it.
std::string ToText(const Checks& checks, const Style& style);

// For scripts: {"ok": true, "checks": [{"name": .., "status": "ok"|"note"|"bad", "detail": ..,
// "fix": ..}, ..]}.
std::string ToJson(const Checks& checks);

}  // namespace baleen::cli
