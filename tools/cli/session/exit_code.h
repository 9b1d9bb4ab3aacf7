// How every command of `baleen` ends: exit code, and one line on stderr when something is wrong.
#pragma once

#include "absl/status/status.h"

namespace baleen::cli {

inline constexpr int kExitGood = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;  // the command line itself is wrong

// Prints "error: UNAVAILABLE: message" and returns kExitFailed; kExitGood, silently, for OK.
// Neither this nor the next says anything when standard output has failed: that is why, and
// Conclude says it.
int ExitWith(const absl::Status& status);

// For what fails on this machine, where a gRPC code says nothing: "error: message", kExitFailed;
// kExitGood for OK.
int ExitWithMessage(const absl::Status& status);

// For an option whose value can not be used: "error: message", kExitUsage.
int ExitWithUsage(const absl::Status& status);

// The last thing of every command: `exit_code`, unless standard output has failed. Then "error:
// standard output: No space left on device", kExitFailed.
int Conclude(int exit_code);

}  // namespace baleen::cli
