// The command line of Baleen: `baleen up`, `demo`, `chat`, `generate`, `placement`,
// `doctor`.
#include <unistd.h>

#include "observability/base/log.h"
#include "observability/process/standard_streams.h"
#include "tools/cli/command_line.h"
#include "tools/cli/session/exit_code.h"
#include "tools/cli/terminal/style.h"

int main(int argument_count, char** arguments) {
  baleen::process::OpenStandardStreams();
  const auto parsed = baleen::cli::ParseCommandLine(argument_count, arguments);
  if (parsed.run == nullptr) {
    baleen::cli::WriteAll(STDOUT_FILENO, parsed.out);
    baleen::cli::WriteAll(STDERR_FILENO, parsed.err);
    return baleen::cli::Conclude(parsed.exit_code);
  }
  // What a command has to say, it says itself; the parts of a worker that run in here log for
  // operators.
  baleen::log::Init("baleen", baleen::log::Format::kText, baleen::log::Level::kError);
  return baleen::cli::Conclude(parsed.run());
}
