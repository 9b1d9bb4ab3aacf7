#include "router/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <map>

namespace baleen::router {
namespace {

constexpr std::uint32_t kRequestsMaxMax = 100'000;
constexpr std::uint32_t kMegabytesMaxMax = 65'536;
constexpr std::uint32_t kSecondsMax = 86'400;
constexpr std::uint32_t kThreadsMax = 64;
constexpr std::size_t kModelsMax = 16;

// Values as they are written, before they mean anything.
struct Raw {
  std::string log_format = "text";
  std::string log_level = "info";
  std::uint32_t request_seconds_max = 3600;
  std::uint32_t queue_seconds_max = 30;
  std::uint32_t drain_seconds = 10;
};

void Declare(CLI::App& app, RouterOptions& options, Raw& raw) {
  const auto add = [&app](const char* flag, auto& value, const char* help) {
    std::string environment = fmt::format("BALEEN_{}", flag + 2);
    for (char& c : environment) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    return app.add_option(flag, value, help)->envname(environment)->capture_default_str();
  };
  const auto range = [](std::uint32_t least, std::uint32_t most) {
    return CLI::Range(least, most);
  };
  add("--model", options.models, "Model directories with tokenizer and chat template, DIR[,DIR]")
      ->required()
      ->delimiter(',');
  add("--listen", options.listen, "Address for clients, host:port");
  add("--worker-listen", options.worker_listen, "Address for workers, host:port");
  add("--metrics-listen", options.metrics_listen, "Address of the metrics page");
  add("--requests-max", options.requests_max, "Requests inside at once, waiting or running")
      ->check(range(1, kRequestsMaxMax));
  add("--request-megabytes-max", options.request_megabytes_max, "MiB of their messages together")
      ->check(range(4, kMegabytesMaxMax));
  add("--request-seconds-max", raw.request_seconds_max, "The longest deadline of a request")
      ->check(range(1, kSecondsMax));
  add("--queue-seconds-max", raw.queue_seconds_max, "The longest wait for a free worker")
      ->check(range(0, kSecondsMax));
  add("--client-threads", options.client_threads, "Threads that serve clients' streams")
      ->check(range(1, kThreadsMax));
  add("--text-threads", options.text_threads, "Threads that tokenize")
      ->check(range(1, kThreadsMax));
  add("--drain-seconds", raw.drain_seconds, "For running requests, after SIGTERM")
      ->check(range(0, kSecondsMax));
  add("--log-format", raw.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  add("--log-level", raw.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.add_flag("--die-with-parent", options.die_with_parent, "Stop when the parent process ends")
      ->envname("BALEEN_DIE_WITH_PARENT");
}

void Interpret(const Raw& raw, RouterOptions& options) {
  static const std::map<std::string, log::Level> kLevels = {{"debug", log::Level::kDebug},
                                                            {"info", log::Level::kInfo},
                                                            {"warning", log::Level::kWarning},
                                                            {"error", log::Level::kError}};
  options.log_format = raw.log_format == "json" ? log::Format::kJson : log::Format::kText;
  options.log_level = kLevels.at(raw.log_level);
  options.request_wait_max = absl::Seconds(raw.request_seconds_max);
  options.queue_wait_max = absl::Seconds(raw.queue_seconds_max);
  options.drain = absl::Seconds(raw.drain_seconds);
}

}  // namespace

absl::StatusOr<ParsedOptions> ParseOptions(int argc, const char* const* argv) {
  ParsedOptions parsed;
  Raw raw;
  CLI::App app(
      "baleen-router: the front door of a Baleen cluster. Clients call it, workers dial in.",
      "baleen-router");
  Declare(app, parsed.options, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    parsed.help = app.help();
    return parsed;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (parsed.options.models.size() > kModelsMax) {
    return absl::InvalidArgumentError(fmt::format("--model: {} directories, the most are {}",
                                                  parsed.options.models.size(), kModelsMax));
  }
  Interpret(raw, parsed.options);
  return parsed;
}

}  // namespace baleen::router
