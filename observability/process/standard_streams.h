// Descriptors 0, 1 and 2.
#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace baleen::process {

// Opens those of the three that whoever started us left closed: else a socket or file of ours would
// get the number, and be written to as a log. What is written to such a stdout is an error, to such
// a stderr lost. Call first thing in main.
void OpenStandardStreams();

// Writes all of `text`. False: it could not, errno says why.
bool WriteAll(int descriptor, std::string_view text);

// All of `text`, seen now. INTERNAL says what is wrong: "standard output: No space left on device".
absl::Status PrintToStandardOutput(std::string_view text);

}  // namespace baleen::process
