// The options of `baleen` and its commands.
#pragma once

#include <functional>
#include <string>

namespace baleen::cli {

// What the command line asks for.
struct ParsedCommandLine {
  // Runs the command and returns its exit code. Null: there is nothing to run, print the texts and
  // exit.
  std::function<int()> run;
  int exit_code = 0;
  std::string out;  // help or version
  std::string err;  // "error: ...\n"
};

ParsedCommandLine ParseCommandLine(int argument_count, const char* const* arguments);

}  // namespace baleen::cli
