#include "observability/process/command_line.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <map>

namespace baleen::process {
namespace {

constexpr std::uint32_t kSecondsMax = 86'400;

// A name that stands for a value; `value` keeps its default unless the option is given.
template <typename Value>
void AddChoice(CLI::App& app, const std::string& flag, Value& value, const std::string& help,
               const std::map<std::string, Value>& choices) {
  std::string standard;
  std::string names;
  for (const auto& [name, choice] : choices) {
    if (choice == value) standard = name;
    names += (names.empty() ? "" : ", ") + name;
  }
  app.add_option_function<std::string>(
         flag, [&value, choices](const std::string& name) { value = choices.at(name); },
         help + ": " + names)
      ->envname(EnvironmentNameOf(flag))
      ->default_str(standard)
      ->check(CLI::IsMember(choices));
}

// All of `text` as a number in decimal digits.
template <typename Number>
bool ParseDecimal(std::string_view text, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end;
}

// "::1:80" could be read in two ways.
bool IsHost(std::string_view host) {
  if (host.starts_with('[')) return host.size() > 2 && host.ends_with(']');
  return !host.empty() && host.find(':') == std::string_view::npos;
}

// Empty if nothing is.
std::string WhatIsWrongWithAddress(std::string_view address, std::uint16_t port_least) {
  const std::size_t colon = address.rfind(':');
  std::uint16_t port = 0;
  if (colon != std::string_view::npos && IsHost(address.substr(0, colon)) &&
      ParseDecimal(address.substr(colon + 1), port) && port >= port_least) {
    return "";
  }
  return fmt::format("'{}' is not host:port with a port {}up to 65535", address,
                     port_least > 0 ? fmt::format("from {} ", port_least) : "");
}

}  // namespace

std::string EnvironmentNameOf(std::string_view flag) {
  std::string name = "BALEEN_";
  for (const char c : flag.substr(flag.find_first_not_of('-'))) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  }
  return name;
}

CLI::Validator WholeNumber(std::uint64_t least, std::uint64_t most) {
  const auto check = [least, most](const std::string& text) -> std::string {
    std::uint64_t number = 0;
    const bool octal = text.size() > 1 && text.front() == '0';
    if (!octal && ParseDecimal(text, number) && number >= least && number <= most) return "";
    return fmt::format("Value {} not in range {} to {}, in decimal digits", text, least, most);
  };
  return CLI::Validator(check, fmt::format("in [{} - {}]", least, most));
}

CLI::Validator HostPort(std::uint16_t port_least) {
  return CLI::Validator(
      [port_least](const std::string& text) { return WhatIsWrongWithAddress(text, port_least); },
      "");
}

CLI::Option* AddSeconds(CLI::App& app, const std::string& flag, absl::Duration& value,
                        const std::string& help, std::uint32_t least) {
  return app
      .add_option_function<std::uint32_t>(
          flag, [&value](std::uint32_t seconds) { value = absl::Seconds(seconds); }, help)
      ->envname(EnvironmentNameOf(flag))
      ->default_str(fmt::format("{}", absl::ToInt64Seconds(value)))
      ->check(WholeNumber(least, kSecondsMax));
}

void AddProcessOptions(CLI::App& app, ProcessOptions& options) {
  AddOption(app, "--metrics-listen", options.metrics_listen,
            "Address of the metrics page, host:port")
      ->check(HostPort());
  AddSeconds(app, "--drain-seconds", options.drain, "For running requests, after SIGTERM");
  AddChoice<log::Format>(app, "--log-format", options.log_format, "How logs look",
                         {{"json", log::Format::kJson}, {"text", log::Format::kText}});
  AddChoice<log::Level>(app, "--log-level", options.log_level, "The least that is logged",
                        {{"debug", log::Level::kDebug},
                         {"info", log::Level::kInfo},
                         {"warning", log::Level::kWarning},
                         {"error", log::Level::kError}});
  app.add_flag("--die-with-parent", options.die_with_parent,
               "End at once when the parent process does")
      ->envname(EnvironmentNameOf("--die-with-parent"));
}

absl::Status Parse(CLI::App& app, int argc, const char* const* argv, ProcessOptions& options) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    options.help = app.help();
    return absl::OkStatus();
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return absl::OkStatus();
}

absl::Status CheckHostPort(std::string_view flag, std::string_view address,
                           std::uint16_t port_least) {
  const std::string wrong = WhatIsWrongWithAddress(address, port_least);
  if (wrong.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{}: {}", flag, wrong));
}

}  // namespace baleen::process
