// The command line of a server process: every flag has an environment variable, and the flags that
// all of them share are declared here once.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "observability/base/log.h"

namespace baleen::process {

// What every server process can be told.
struct ProcessOptions {
  std::string name;  // of the process, in its logs
  std::string help;  // not empty: --help was given, print this and do nothing else
  std::string metrics_listen = "127.0.0.1:0";  // port 0 picks a free one
  absl::Duration drain = absl::Seconds(10);    // for running requests, after SIGTERM
  log::Format log_format = log::Format::kText;
  log::Level log_level = log::Level::kInfo;
  bool die_with_parent = false;
};

// "BALEEN_REQUESTS_MAX" for "--requests-max".
std::string EnvironmentNameOf(std::string_view flag);

// An option with its environment variable and its default in the help.
template <typename Value>
CLI::Option* AddOption(CLI::App& app, const std::string& flag, Value& value,
                       const std::string& help) {
  return app.add_option(flag, value, help)->envname(EnvironmentNameOf(flag))->capture_default_str();
}

// A check of a whole number, `least` to `most`, in decimal digits: CLI11 by itself takes 010 for 8,
// and a number that is too large for the largest there is. The refusal names the limits.
CLI::Validator WholeNumber(std::uint64_t least, std::uint64_t most);

// A check of a host:port, CheckHostPort as a validator.
CLI::Validator HostPort(std::uint16_t port_least = 0);

// An option in whole seconds, `least` to a day.
CLI::Option* AddSeconds(CLI::App& app, const std::string& flag, absl::Duration& value,
                        const std::string& help, std::uint32_t least = 0);

// --metrics-listen, --drain-seconds, --log-format, --log-level, --die-with-parent.
void AddProcessOptions(CLI::App& app, ProcessOptions& options);

// Parses into what was added to `app`; help that was asked for goes to `options`. INVALID_ARGUMENT
// names the flag and the limit in one line.
absl::Status Parse(CLI::App& app, int argc, const char* const* argv, ProcessOptions& options);

// INVALID_ARGUMENT, naming `flag`, unless `address` is host:port (an IPv6 host in brackets) with a
// port of `port_least` to 65535: 0 to listen, 1 to dial.
absl::Status CheckHostPort(std::string_view flag, std::string_view address,
                           std::uint16_t port_least = 0);

}  // namespace baleen::process
