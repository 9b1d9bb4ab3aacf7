// Runs a program of this build to its end, bounded, and keeps what it said.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace baleen::integration {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr int kSlowness = 8;  // sanitizers
#else
inline constexpr int kSlowness = 1;
#endif

struct ProgramResult {
  int exit_code = -1;  // -1: ended by a signal, or did not end in time
  std::string out;
  std::string err;
  absl::Duration took;
};

// Path of a program in build/<preset>/bin.
std::string BinaryPath(const std::string& name);

// `name` is a program of this build, or a path. Killed after a minute (times kSlowness).
ProgramResult RunProgram(const std::string& name, const std::vector<std::string>& arguments);

// Appends what can be read from a non-blocking descriptor now.
void ReadAvailable(int number, std::string& text);

// Looks at `condition` again and again, for at most `limit`; whether it became true.
bool Eventually(absl::Duration limit, const std::function<bool()>& condition);

// Whether process `pid` still runs. A zombie of ours is reaped and does not.
bool IsRunning(int pid);

}  // namespace baleen::integration
