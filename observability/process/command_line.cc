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

}  // namespace

std::string EnvironmentNameOf(std::string_view flag) {
  std::string name = "BALEEN_";
  for (const char c : flag.substr(flag.find_first_not_of('-'))) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  }
  return name;
}

CLI::Option* AddSeconds(CLI::App& app, const std::string& flag, absl::Duration& value,
                        const std::string& help, std::uint32_t least) {
  return app
      .add_option_function<std::uint32_t>(
          flag, [&value](std::uint32_t seconds) { value = absl::Seconds(seconds); }, help)
      ->envname(EnvironmentNameOf(flag))
      ->default_str(fmt::format("{}", absl::ToInt64Seconds(value)))
      ->check(CLI::Range(least, kSecondsMax));
}

void AddProcessOptions(CLI::App& app, ProcessOptions& options) {
  AddOption(app, "--metrics-listen", options.metrics_listen,
            "Address of the metrics page, host:port");
  AddSeconds(app, "--drain-seconds", options.drain, "For running requests, after SIGTERM");
  AddChoice<log::Format>(app, "--log-format", options.log_format, "How logs look",
                         {{"json", log::Format::kJson}, {"text", log::Format::kText}});
  AddChoice<log::Level>(app, "--log-level", options.log_level, "The least that is logged",
                        {{"debug", log::Level::kDebug},
                         {"info", log::Level::kInfo},
                         {"warning", log::Level::kWarning},
                         {"error", log::Level::kError}});
  app.add_flag("--die-with-parent", options.die_with_parent, "Stop when the parent process ends")
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
  return CheckHostPort("--metrics-listen", options.metrics_listen);
}

absl::Status CheckHostPort(std::string_view flag, std::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon != std::string_view::npos && colon > 0) {
    const std::string_view port = address.substr(colon + 1);
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (error == std::errc() && end == port.data() + port.size()) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("{}: '{}' is not host:port with a port up to 65535", flag, address));
}

}  // namespace baleen::process
