#include "worker/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
#include <utility>

#include "observability/base/status_macros.h"

namespace baleen::worker {
namespace {

constexpr std::uint32_t kRanksMax = 65'535;
constexpr std::uint32_t kKvBlocksMax = 1u << 30;
constexpr std::uint32_t kSequencesMaxMax = 1024;
constexpr std::uint32_t kStepTokensMaxMax = 16'384;
constexpr std::uint32_t kDrainSecondsMax = 3600;
constexpr std::size_t kRoutersMax = 64;

// Values as they are written, before they mean anything.
struct Raw {
  std::string role = "mixed";
  std::string log_format = "text";
  std::string log_level = "info";
  std::uint32_t drain_seconds = 10;
};

void Declare(CLI::App& app, WorkerOptions& options, Raw& raw) {
  const auto add = [&app](const char* flag, auto& value, const char* help) {
    std::string environment = fmt::format("BALEEN_{}", flag + 2);
    for (char& c : environment) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    return app.add_option(flag, value, help)->envname(environment)->capture_default_str();
  };
  const auto range = [](std::uint32_t least, std::uint32_t most) {
    return CLI::Range(least, most);
  };
  add("--model", options.model_directory, "Model directory (Hugging Face layout)")->required();
  add("--role", raw.role, "prefill, decode or mixed")
      ->check(CLI::IsMember({"prefill", "decode", "mixed"}));
  add("--group", options.group, "Group that this rank is part of")->check(range(0, kRanksMax));
  add("--rank", options.rank, "Rank within the group")->check(range(0, kRanksMax));
  add("--router", options.routers, "Routers to attach to, host:port[,host:port]")
      ->required()
      ->delimiter(',');
  add("--metrics-listen", options.metrics_listen, "Address of the metrics page");
  add("--kv-blocks", options.kv_blocks, "KV blocks of 64 tokens; 0 = from the memory there is")
      ->check(range(0, kKvBlocksMax));
  add("--sequences-max", options.sequences_max, "Sequences that hold KV at a time")
      ->check(range(1, kSequencesMaxMax));
  add("--step-tokens-max", options.step_tokens_max, "Prompt tokens computed in one step")
      ->check(range(1, kStepTokensMaxMax));
  add("--drain-seconds", raw.drain_seconds, "For running requests, after SIGTERM")
      ->check(range(0, kDrainSecondsMax));
  add("--log-format", raw.log_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  add("--log-level", raw.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.add_flag("--die-with-parent", options.die_with_parent, "Stop when the parent process ends")
      ->envname("BALEEN_DIE_WITH_PARENT");
}

bool IsHostPort(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size()) return false;
  const std::string port = address.substr(colon + 1);
  return port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos &&
         std::stoul(port) <= 65'535;
}

absl::Status Validate(const WorkerOptions& options) {
  if (options.routers.size() > kRoutersMax) {
    return absl::InvalidArgumentError(fmt::format("--router: {} addresses, the most are {}",
                                                  options.routers.size(), kRoutersMax));
  }
  for (const std::string& router : options.routers) {
    if (!IsHostPort(router)) {
      return absl::InvalidArgumentError(fmt::format("--router: '{}' is not host:port", router));
    }
  }
  if (!IsHostPort(options.metrics_listen)) {
    return absl::InvalidArgumentError(
        fmt::format("--metrics-listen: '{}' is not host:port", options.metrics_listen));
  }
  return absl::OkStatus();
}

void Interpret(const Raw& raw, WorkerOptions& options) {
  static const std::map<std::string, log::Level> kLevels = {{"debug", log::Level::kDebug},
                                                            {"info", log::Level::kInfo},
                                                            {"warning", log::Level::kWarning},
                                                            {"error", log::Level::kError}};
  options.role = ParseRole(raw.role).value();
  options.log_format = raw.log_format == "json" ? log::Format::kJson : log::Format::kText;
  options.log_level = kLevels.at(raw.log_level);
  options.drain = absl::Seconds(raw.drain_seconds);
}

}  // namespace

std::string WorkerOptions::WorkerName() const {
  return fmt::format("{}-{}.{}", NameOf(role), group, rank);
}

absl::StatusOr<ParsedOptions> ParseOptions(int argc, const char* const* argv) {
  ParsedOptions parsed;
  Raw raw;
  CLI::App app("baleen-worker: one rank of a Baleen cluster. Attaches to routers and computes.",
               "baleen-worker");
  Declare(app, parsed.options, raw);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    parsed.help = app.help();
    return parsed;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  Interpret(raw, parsed.options);
  BALEEN_RETURN_IF_ERROR(Validate(parsed.options));
  return parsed;
}

}  // namespace baleen::worker
