// Does the data plane work: two ranks in this process, one block from one to the other.
#pragma once

#include "tools/cli/doctor/check.h"

namespace baleen::cli {

// Takes at most a few seconds.
Check CheckDataPlane();

}  // namespace baleen::cli
